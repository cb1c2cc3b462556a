"""Images in requests: recognized, measured and bounded without decoding, and fetched if that is allowed."""
