"""A reader with operations that end it: `python -m tests.support.misbehaving_reader FD`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from workers.readers import __main__ as reader
from workers.readers.operations import Operations

COMMAND = (sys.executable, "-m", "tests.support.misbehaving_reader")


class Misbehaving(Operations):
    """Operations that do what hostile files might make a library do."""

    def run(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        misbehavior = getattr(self, f"_{operation}", None)
        return misbehavior() if misbehavior else super().run(operation, arguments)

    def _hang(self) -> None:
        while True:
            time.sleep(0.01)

    def _hang_in_one_call(self) -> None:
        sum(range(10**15))  # never lets go of the interpreter

    def _take_memory(self) -> None:
        taken = []
        while True:
            taken.append(b"x" * 2**20)

    def _take_memory_at_once(self) -> None:
        bytearray(2**45)

    def _abort(self) -> None:
        os.abort()

    def _segfault(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def _exit(self) -> None:
        sys.exit(3)

    def _panic(self) -> None:
        raise _Panic("called `Option::unwrap()` on a `None` value")

    def _answer_deeply(self) -> Any:
        content: Any = []
        for _ in range(100):
            content = [content]
        return {"objects": content}

    def _environment(self) -> Any:
        return dict(os.environ)

    def _pid(self) -> Any:
        return os.getpid()


class _Panic(BaseException):
    """Like the panics that pyo3 raises, not an `Exception`."""


if __name__ == "__main__":
    reader.main(Misbehaving)
