"""Cursors: opaque to clients, the last id of a page to us."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from catalog.errors import InvalidCursor

Row = TypeVar("Row")

_ID = re.compile(rb"[0-9]{1,19}")  # looked at before it is made a number: that takes time and has a limit of its own
_OURS = "That cursor is not one of ours. Take `next_cursor` of the page before."


def next_cursor(rows: Sequence[Row], limit: int, position: Callable[[Row], int | tuple[float, int]]) -> str | None:
    """The cursor behind the last row of a full page; None where fewer came than were asked for, for the list ends."""
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
        raise InvalidCursor(_OURS) from error
    if not _ID.fullmatch(digits) or int(digits) >= 2**63:
        raise InvalidCursor(_OURS)
    return int(digits)


def encode_scored(score: float, last_id: int) -> str:
    """Of a list by score: a float to its last bit, or some would be lost between pages."""
    return base64.urlsafe_b64encode(struct.pack("<dq", score, last_id)).decode().rstrip("=")


def decode_scored(cursor: str | None) -> tuple[float, int] | None:
    """Raises `InvalidCursor`."""
    if cursor is None:
        return None
    try:
        score, last_id = struct.unpack("<dq", base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, struct.error) as error:
        raise InvalidCursor(_OURS) from error
    return score, last_id
