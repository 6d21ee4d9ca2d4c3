"""The identity of a local folder, which has no commit."""

from __future__ import annotations

import hashlib
from pathlib import Path

from catalog.errors import FolderUnreadable
from workers.finetunes.unusable import PICKLED_ADAPTER

HASHED_SUFFIXES = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja"})
READ_BLOCK_BYTES = 2**20


def content_sha(folder: Path) -> str:
    """sha256 (hex) of the names and contents of the files in a folder (top level) that can affect a vector. A pickled
    adapter can if there are no safetensors.

    Raises `FolderUnreadable`.
    """
    digest = hashlib.sha256()
    try:
        listed = [path for path in folder.iterdir() if path.is_file()]
        files = sorted(path for path in listed if path.suffix in HASHED_SUFFIXES)
        if not any(path.suffix == ".safetensors" for path in files):
            files += [path for path in listed if path.name == PICKLED_ADAPTER]
        for path in files:
            # the length separates the end of one file from the start of the next
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
            with path.open("rb") as stream:
                while block := stream.read(READ_BLOCK_BYTES):
                    digest.update(block)
    except OSError as error:
        raise FolderUnreadable(f"{folder} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()
