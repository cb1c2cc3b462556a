"""From a prompt's tokens to an answer's text: the batch, sampling, detokenizing, parsing."""
