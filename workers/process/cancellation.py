"""How work in the middle of something learns that nobody wants it any more: it asks, wherever a pause costs nothing.

Whoever begins a piece of work says in `heeding` when it is to be given up; what runs below calls `check` between two
steps, without knowing whose work it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Stopped(Exception):
    """The work was given up. Not an error of the job: whoever took the job away has said what became of it."""


_given_up: ContextVar[Callable[[], bool] | None] = ContextVar("given_up", default=None)


@contextmanager
def heeding(asked: Callable[[], bool]) -> Iterator[None]:
    """While it lasts, `check` in this thread raises once `asked` says so."""
    token = _given_up.set(asked)
    try:
        yield
    finally:
        _given_up.reset(token)


def given_up() -> bool:
    """Whether the work of this thread is given up."""
    asked = _given_up.get()
    return asked is not None and asked()


def check() -> None:
    """Raises `Stopped`."""
    if given_up():
        raise Stopped
