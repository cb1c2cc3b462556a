"""One runner for each loaded model: it takes requests up, advances them step by step and cancels them."""
