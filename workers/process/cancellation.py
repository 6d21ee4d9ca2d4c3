"""Cooperative cancellation: long-running code calls `raise_if_cancelled` between two steps.

The caller that starts the work passes `cancel_scope` a function that returns whether it is cancelled. The code that it
calls does not need to know which job it works for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Cancelled(Exception):
    """The work was cancelled. This is not an error of the job: the job's outcome is recorded by what cancelled it."""


_is_cancelled: ContextVar[Callable[[], bool] | None] = ContextVar("is_cancelled", default=None)


@contextmanager
def cancel_scope(cancelled: Callable[[], bool]) -> Iterator[None]:
    """Within the context, `raise_if_cancelled` in this thread raises once `cancelled` returns True."""
    token = _is_cancelled.set(cancelled)
    try:
        yield
    finally:
        _is_cancelled.reset(token)


def is_cancelled() -> bool:
    """Whether the work of this thread is cancelled."""
    return current_check()()


def current_check() -> Callable[[], bool]:
    """The function of the current scope, for a scope within it that may also end for another reason."""
    return _is_cancelled.get() or (lambda: False)


def raise_if_cancelled() -> None:
    """Raises `Cancelled`."""
    if is_cancelled():
        raise Cancelled
