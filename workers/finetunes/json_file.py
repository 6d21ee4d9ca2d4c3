"""Reading JSON of strangers: no larger and no more deeply nested than what trainers write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from catalog.errors import FileTooLarge, FolderUnreadable, Refused

MAX_DEPTH = 64  # whoever walks or prints the content does it by recursion
MAX_PARTS = 2**17  # lists and objects; the parser keeps every thread waiting while it makes them


def read_object(path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]:
    """A file's JSON object; raises `error`, `FileTooLarge`, `FolderUnreadable`."""
    try:
        if path.stat().st_size > max_bytes:
            raise FileTooLarge(f"{path.name} is larger than {max_bytes:,} bytes.")
        text = path.read_text(encoding="utf-8")
        if text.count("[") + text.count("{") > MAX_PARTS:
            raise error(f"{path.name} has more than {MAX_PARTS:,} lists and objects.")
        content = json.loads(text)
    except OSError as cause:
        raise FolderUnreadable(f"{path.name} cannot be read: {cause.strerror or cause}.") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path.name} is not JSON.") from cause
    if not isinstance(content, dict):
        raise error(f"{path.name} is not a JSON object.")
    if _is_deep(content):
        raise error(f"{path.name} is nested more than {MAX_DEPTH} levels deep.")
    return content


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True
