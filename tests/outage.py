"""A server of the tests that goes away for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.cli.servers import Server


@contextmanager
def away(server: Server | None) -> Iterator[None]:
    """The server is crashed for the length of the block; skips the test where it is not ours to crash."""
    if server is None:
        pytest.skip("the address of that server was given: it is not ours to stop")
    server.kill()
    try:
        assert not server.answers()
        yield
    finally:
        server.start()
