"""What callers use to read the files of a repo, wherever they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from catalog.errors import Refused
from workers.encoding.resident_base import BaseFiles
from workers.finetunes.contents import FetchHeader
from workers.finetunes.finetune import FineTune
from workers.finetunes.repo_files import Choice
from workers.finetunes.shape_fit import Shape


class Readers(Protocol):
    """Reads the untrusted files of `repo`.

    Each method raises what the function of the same name raises. Those of `ReaderPool` also raise `ReaderEnded`, with
    the repo, if the files end the process that reads them.
    """

    def read_finetune(self, repo: str, folder: Path, *, max_file_bytes: int) -> FineTune:
        """As `workers.finetunes.reading.read_finetune`. Of a full model, the config is checked against the files."""
        ...

    def screen_finetune(self, repo: str, top: Path, choice: Choice, fetch_header: FetchHeader) -> FineTune:
        """As `workers.finetunes.reading.screen_finetune`."""
        ...

    def read_base(self, repo: str, folder: Path) -> BaseFiles:
        """As `workers.encoding.resident_base.read_base`."""
        ...

    def weight_shapes(self, repo: str, folder: Path) -> dict[str, Shape]:
        """As `workers.finetunes.shape_fit.weight_shapes`."""
        ...

    def fetched_shapes(
        self, repo: str, folder: Path, names: Sequence[str], fetch_header: FetchHeader
    ) -> dict[str, Shape]:
        """As `workers.finetunes.shape_fit.fetched_shapes`."""
        ...

    def read_object(self, repo: str, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]:
        """As `workers.finetunes.json_file.read_object`."""
        ...

    def bases_in_card(self, repo: str, path: Path) -> tuple[str, ...]:
        """As `workers.finetunes.card.bases_in_card`."""
        ...

    def convert_pickled(self, repo: str, source: Path, target: Path, *, max_file_bytes: int) -> None:
        """As `workers.finetunes.pickled.convert`."""
        ...
