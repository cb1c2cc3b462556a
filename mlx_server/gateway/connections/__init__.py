"""The connections of clients: the listening sockets, and the HTTP and WebSocket protocols."""
