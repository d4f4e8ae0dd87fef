"""The interface of the server, over HTTP and WebSocket."""
