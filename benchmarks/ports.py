"""Ports of 127.0.0.1 for servers that cannot choose and print one themselves."""

import socket


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
