"""The identity of a plain folder that no hub gave a commit to."""

from __future__ import annotations

import hashlib
from pathlib import Path

from catalog.errors import FolderUnreadable

SUFFIXES = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja"})
BLOCK = 1 << 20  # bytes


def content_sha(folder: Path) -> str:
    """sha256, in hex, of the names and bytes of the files in a folder (top level) that can bear on a vector.

    Raises `FolderUnreadable`.
    """
    digest = hashlib.sha256()
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
        for path in files:
            # the length keeps the end of one file from passing as the start of the next
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
            with path.open("rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
    except OSError as error:
        raise FolderUnreadable(f"{folder} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()
