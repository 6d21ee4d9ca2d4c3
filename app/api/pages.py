"""Cursors: opaque to clients, the last id of a page to us."""

from __future__ import annotations

import base64
import binascii

from catalog.errors import InvalidCursor


def encode(last_id: int) -> str:
    return base64.urlsafe_b64encode(str(last_id).encode()).decode().rstrip("=")


def decode(cursor: str | None) -> int | None:
    """Raises `InvalidCursor`."""
    if cursor is None:
        return None
    try:
        last_id = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error) as error:
        raise InvalidCursor("That cursor is not one of ours. Take `next_cursor` of the page before.") from error
    if not 0 <= last_id < 2**63:
        raise InvalidCursor("That cursor is not one of ours. Take `next_cursor` of the page before.")
    return last_id
