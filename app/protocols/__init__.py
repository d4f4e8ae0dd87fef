"""The protocols of a connection, as uvicorn takes them: HTTP/1.1 and WebSocket."""
