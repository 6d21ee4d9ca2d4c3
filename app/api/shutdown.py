"""What has to happen when the process is told to end, before the server waits for its connections to close."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def before_connections_close(action: Callable[[], None]) -> Iterator[None]:
    """While it lasts, SIGTERM and SIGINT run `action` in the event loop, and then what they did before.

    uvicorn ends the lifespan only once every connection is closed, so a stream without end must hear of it here.
    Where no signal can be caught (the server runs in a thread), nothing is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(action)
        if callable(before[number]):
            before[number](number, frame)

    if not all(callable(handler) for handler in before.values()):  # nobody's: the default ends the process at once
        yield
        return
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
