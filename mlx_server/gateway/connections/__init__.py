"""The connections of clients: where the gateway listens, and one HTTP or WebSocket protocol a connection."""
