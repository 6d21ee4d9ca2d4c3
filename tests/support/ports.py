"""Ports for servers that cannot be told to choose one themselves."""

from __future__ import annotations

import socket

_held: list[socket.socket] = []  # for as long as this process lives


def free_port() -> int:
    """A port of the loopback that no other process is given, and on which a server may listen at any time.

    A socket stays bound to it, so that the kernel hands it to nobody; it does not listen, so that connections are
    refused until a server does. Servers set `SO_REUSEADDR`, which lets them bind beside it.
    """
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.append(held)
    return held.getsockname()[1]
