"""Generate answers: the batch, sampling, detokenizing, and parsing of thinking and tool calls."""
