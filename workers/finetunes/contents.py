"""The parsed files of a fine-tune, from its folder or as another process parsed them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from catalog.errors import Refused
from workers.finetunes.card import bases_in_card, words_of_card
from workers.finetunes.json_file import read_object
from workers.finetunes.safetensors_file import parse_header
from workers.finetunes.weight_files import Header, ReadHeader

CARD_FILE = "README.md"

RawHeader = tuple[bytes, int]  # the JSON of a safetensors header, and the size of its file
FetchHeader = Callable[[str], RawHeader]  # from a path in the repo


@dataclass(frozen=True)
class Card:
    """The bases that a model card names, and the words of its text (None if it has none)."""

    bases: tuple[str, ...] = ()
    words: str | None = None


class Files(Protocol):
    """Reads the files that describe a fine-tune. Headers are named by their paths in the repo."""

    def read_object(self, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]: ...

    def read_header(self, path: str) -> Header: ...

    def read_card(self) -> Card: ...


class FolderFiles:
    """Parses the files in the folder `top`, whose headers `read_header` returns."""

    def __init__(self, top: Path, read_header: ReadHeader) -> None:
        self._top = top
        self._read_header = read_header

    def read_object(self, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]:
        return read_object(path, error, max_bytes=max_bytes)

    def read_header(self, path: str) -> Header:
        return self._read_header(path)

    def read_card(self) -> Card:
        path = self._top / CARD_FILE
        return Card(bases_in_card(path), words_of_card(path))


@dataclass
class Contents:
    """What was parsed of a fine-tune's files: JSON objects by their paths in the repo, headers, and the card."""

    top: Path
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    headers: dict[str, Header] = field(default_factory=dict)
    card: Card = field(default_factory=Card)

    def read_object(self, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]:
        return self.objects[path.relative_to(self.top).as_posix()]

    def read_header(self, path: str) -> Header:
        return self.headers[path]

    def read_card(self) -> Card:
        return self.card


class RecordedFiles:
    """Reads from `files`, and keeps what was read in `contents`."""

    def __init__(self, top: Path, files: Files) -> None:
        self.contents = Contents(top)
        self._files = files

    def read_object(self, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]:
        content = self._files.read_object(path, error, max_bytes=max_bytes)
        self.contents.objects[path.relative_to(self.contents.top).as_posix()] = content
        return content

    def read_header(self, path: str) -> Header:
        if path not in self.contents.headers:
            self.contents.headers[path] = self._files.read_header(path)
        return self.contents.headers[path]

    def read_card(self) -> Card:
        self.contents.card = self._files.read_card()
        return self.contents.card


def parse_fetched(fetch: FetchHeader) -> ReadHeader:
    """Parses the headers that `fetch` returns. Raises `CorruptWeights` and what `fetch` raises."""
    return lambda path: parse_header(path, *fetch(path))
