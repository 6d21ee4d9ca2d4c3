"""Downloads of adapter archives into a folder."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from app.client import Client
from catalog.errors import InvalidInput


def download_archive(client: Client, path: str, folder: Path, **params: str | None) -> list[Path]:
    """Download the archive at a path of the API, extract it into a new or empty folder, and return the files.

    Raises `InvalidInput` if the folder is not empty, and the errors of the client.
    """
    check_empty(folder)
    with tempfile.TemporaryFile(prefix="deltadex-") as file:
        client.download(path, file, **params)
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
            return [folder / name for name in archive.namelist()]


def check_empty(folder: Path) -> None:
    """Raises `InvalidInput` if the folder exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} already exists. Choose a new or an empty folder.")
