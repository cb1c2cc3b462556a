"""`GET /doctor` and `GET /clients`: run commands as processes of their own, so that the agent stays small."""
