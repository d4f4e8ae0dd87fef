"""HTTP and WebSocket: what clients see of the sessions."""
