"""SIGINT and SIGTERM for a command that needs some seconds to end in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def one_interrupt() -> Iterator[None]:
    """While it lasts, the first SIGINT or SIGTERM raises KeyboardInterrupt and all later ones are ignored: what has
    begun to stop is not torn off. A signal that was ignored before stays so; only the main thread can do this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    heeded = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    before = [(each, signal.signal(each, interrupt)) for each in heeded]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
