"""Free ports, for servers that cannot choose one themselves."""

from __future__ import annotations

import socket

_reserved: list[socket.socket] = []  # open as long as this process runs


def free_port() -> int:
    """A port of the loopback that is reserved for this process, and on which a server may listen at any time.

    A socket stays bound to the port, so that the kernel gives it to no other process. The socket does not listen, so
    connections are refused until a server listens. Servers set `SO_REUSEADDR`, which lets them bind to the same port.
    """
    reservation = socket.socket()
    reservation.bind(("127.0.0.1", 0))
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _reserved.append(reservation)
    return reservation.getsockname()[1]
