"""From an archive of the API to a folder."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from app.client import Client
from catalog.errors import InvalidInput


def unpack(client: Client, path: str, folder: Path, **params: str | None) -> list[Path]:
    """Put the files of the archive at that path of the API into a folder that is new or empty, and return them.

    Raises `InvalidInput` where something is in the folder, and what the client raises.
    """
    check_free(folder)
    with tempfile.TemporaryFile(prefix="deltadex-") as file:
        client.download(path, file, **params)
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
            return [folder / name for name in archive.namelist()]


def check_free(folder: Path) -> None:
    """Raises `InvalidInput` where something is in the folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} is there already: name a folder that is new or empty.")
