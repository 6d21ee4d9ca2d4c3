"""The root of the errors."""

from __future__ import annotations


class CatalogError(Exception):
    """Root of everything that Deltadex raises on purpose.

    `status` is the HTTP status, `code` the stable name that clients may match on, and `str(error)` a sentence
    for a person. `place` is what it is about in a text that was sent: where that begins, from 0, and its length,
    both in characters.
    """

    status = 500
    code = "internal_error"
    title = "Internal error"
    transient = False
    place: tuple[int, int] | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
