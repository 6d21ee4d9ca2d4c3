"""Whose files a reader read when it was ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from catalog.errors import ReaderEnded


@contextmanager
def reading_base(repo: str, sha: str) -> Iterator[None]:
    """Within the context, only files of this base are read: a reader that is ended is ended by them. In a nested
    context, those of the inner base.
    """
    try:
        yield
    except ReaderEnded as error:
        error.base = error.base or (repo, sha)
        raise
