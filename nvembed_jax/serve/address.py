"""Addresses that a server listens on."""

from __future__ import annotations

import socket


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: any that is free.

    Raises:
        OSError: the address is in use, or none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def authority(host: str, port: int) -> str:
    """Host and port as URLs have them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
