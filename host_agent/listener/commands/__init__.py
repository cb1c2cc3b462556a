"""`GET /doctor` and `GET /clients`: what commands find out. They run apart, so that the agent stays small."""
