"""Reading untrusted JSON, with limits on size and depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from catalog.errors import FileTooLarge, FolderUnreadable, Refused
from workers.finetunes.file_content import START_BYTES, other_content

MAX_DEPTH = 64  # code that walks or prints the content is recursive
NOT_JSON = "is not JSON: it may be cut off. Save it again and submit it."
MAX_CONTAINERS = 2**17  # lists and objects; the parser holds the GIL while it creates them


class ReadObject(Protocol):
    """Reads a file's JSON object as `read_object` does."""

    def __call__(self, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]: ...


class ReadRepoObject(Protocol):
    """The same for a file of the repo `repo`."""

    def __call__(self, repo: str, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]: ...


def read_object(path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]:
    """A file's JSON object; raises `error`, `FileTooLarge`, `FolderUnreadable`."""
    try:
        if path.stat().st_size > max_bytes:
            raise FileTooLarge(f"{path.name} is larger than {max_bytes:,} bytes.")
        content_bytes = path.read_bytes()
        text = content_bytes.decode(json.detect_encoding(content_bytes))  # editors write byte order marks, or UTF-16
        if text.count("[") + text.count("{") > MAX_CONTAINERS:
            raise error(f"{path.name} has more than {MAX_CONTAINERS:,} lists and objects.")
        content = json.loads(text)
    except OSError as cause:
        raise FolderUnreadable(f"{path.name} cannot be read: {cause.strerror or cause}.") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path.name} {other_content(content_bytes[:START_BYTES]) or NOT_JSON}") from cause
    if not isinstance(content, dict):
        raise error(f"{path.name} is not a JSON object.")
    if _is_deep(content):
        raise error(f"{path.name} is nested more than {MAX_DEPTH} levels deep.")
    return content


def read_repo_object(repo: str, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]:
    """`read_object` in this process, whichever repo the file is of."""
    return read_object(path, error, max_bytes=max_bytes)


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True
