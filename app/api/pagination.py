"""Cursors of lists: the position of a page's last row, opaque to clients."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from catalog.errors import InvalidCursor

Row = TypeVar("Row")

_ID = re.compile(rb"[0-9]{1,19}")  # checked before `int`, which is slow for long texts and limits their length
_INVALID = "Invalid cursor. Use the `next_cursor` of the previous page."


def next_cursor(rows: Sequence[Row], limit: int, position: Callable[[Row], int | tuple[float, int]]) -> str | None:
    """The cursor after the last row of a page; None if the page is not full, because the list ends there."""
    if len(rows) < limit:
        return None
    last = position(rows[-1])
    return encode(last) if isinstance(last, int) else encode_scored(*last)


def encode(last_id: int) -> str:
    return base64.urlsafe_b64encode(str(last_id).encode()).decode().rstrip("=")


def decode(cursor: str | None) -> int | None:
    """Raises `InvalidCursor`."""
    if cursor is None:
        return None
    try:
        digits = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (ValueError, binascii.Error) as error:
        raise InvalidCursor(_INVALID) from error
    if not _ID.fullmatch(digits) or int(digits) >= 2**63:
        raise InvalidCursor(_INVALID)
    return int(digits)


def encode_scored(score: float, last_id: int) -> str:
    """The cursor of a list that is sorted by score. It holds the exact float, so that no row is lost between pages."""
    return base64.urlsafe_b64encode(struct.pack("<dq", score, last_id)).decode().rstrip("=")


def decode_scored(cursor: str | None) -> tuple[float, int] | None:
    """Raises `InvalidCursor`."""
    if cursor is None:
        return None
    try:
        score, last_id = struct.unpack("<dq", base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, struct.error) as error:
        raise InvalidCursor(_INVALID) from error
    return score, last_id
