"""The protocols that uvicorn makes of a connection: HTTP/1.1 and WebSocket."""
