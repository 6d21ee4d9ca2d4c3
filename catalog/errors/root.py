"""The root of the error tree."""

from __future__ import annotations


class CatalogError(Exception):
    """Base class of all errors that Deltadex raises on purpose.

    `status` is the HTTP status, `code` the stable name that clients may match on, and `str(error)` a message for users.
    `span` locates the error in a text of the request: offset from 0 and length, both in characters.
    """

    status = 500
    code = "internal_error"
    title = "Internal error"
    transient = False
    span: tuple[int, int] | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with the next one if it ends with a colon."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[: 1 + lines[0].endswith(":")])[:300]
