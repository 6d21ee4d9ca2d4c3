"""Reading in the process that asks: for benchmarks and tests of what is read, whose files are their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalog.errors import Refused
from workers.encoding.resident_base import BaseFiles, read_base
from workers.finetunes.card import bases_in_card
from workers.finetunes.contents import FetchHeader
from workers.finetunes.finetune import FineTune
from workers.finetunes.json_file import read_object
from workers.finetunes.pickled import convert
from workers.finetunes.reading import read_finetune, screen_finetune
from workers.finetunes.repo_files import Choice
from workers.finetunes.shape_fit import Shape, fetched_shapes, weight_shapes


class InProcessReaders:
    """The `Readers` without a child process."""

    def read_finetune(self, repo: str, folder: Path, *, max_file_bytes: int) -> FineTune:
        return read_finetune(folder, max_file_bytes=max_file_bytes)

    def screen_finetune(self, repo: str, top: Path, choice: Choice, fetch_header: FetchHeader) -> FineTune:
        return screen_finetune(top, choice, fetch_header)

    def read_base(self, repo: str, folder: Path) -> BaseFiles:
        return read_base(folder)

    def weight_shapes(self, repo: str, folder: Path) -> dict[str, Shape]:
        return weight_shapes(folder)

    def fetched_shapes(
        self, repo: str, folder: Path, names: Sequence[str], fetch_header: FetchHeader
    ) -> dict[str, Shape]:
        return fetched_shapes(folder, names, fetch_header)

    def read_object(self, repo: str, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]:
        return read_object(path, error, max_bytes=max_bytes)

    def bases_in_card(self, repo: str, path: Path) -> tuple[str, ...]:
        return bases_in_card(path)

    def convert_pickled(self, repo: str, source: Path, target: Path, *, max_file_bytes: int) -> None:
        convert(source, target, max_file_bytes=max_file_bytes)


IN_PROCESS = InProcessReaders()
