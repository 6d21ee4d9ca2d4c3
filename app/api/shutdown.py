"""Actions on SIGTERM and SIGINT, before the server waits for open connections to close."""

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
    """Inside this context, SIGTERM and SIGINT run `action` in the event loop, and then their previous handler.

    uvicorn ends the lifespan only when every connection is closed, so endless streams have to be ended here. Does
    nothing outside of the main thread, where no signal can be caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(action)
        if callable(previous[number]):
            previous[number](number, frame)

    if not all(callable(handler) for handler in previous.values()):  # the default handler ends the process at once
        yield
        return
    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
