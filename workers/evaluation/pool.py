"""A labeled pool: local fine-tunes and the base model that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalog.errors import CatalogError, InvalidLabels, InvalidRepoId
from catalog.models.repo_ref import RepoRef
from catalog.settings import Settings
from workers.bases.resolver import BaseResolver
from workers.embed import with_name
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.labels import LabeledModel
from workers.evaluation.measures import Ints
from workers.finetunes.content import content_sha
from workers.finetunes.reading import FineTune, read_finetune
from workers.hub.client import Hub

Progress = Callable[[str, int, int], None]  # (step, done, total)


@dataclass(frozen=True)
class Pool:
    """Models in the order of the labels file. Weights are read from disk on each iteration."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    folders: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted(set(self.labels))

    @property
    def class_indices(self) -> Ints:
        """The index of each model's label in `classes`, (n,)."""
        return np.array([self.classes.index(label) for label in self.labels])

    def finetunes(self) -> Iterator[FineTune]:
        """Read each fine-tune; raises what `read_finetune` raises, prefixed with the model's name."""
        for name, folder in zip(self.names, self.folders, strict=True):
            yield _read(name, folder)

    def batches(self, size: int) -> Iterator[list[FineTune]]:
        for start in range(0, len(self), size):
            names, folders = self.names[start : start + size], self.folders[start : start + size]
            yield [_read(name, folder) for name, folder in zip(names, folders, strict=True)]


def gather(labeled: Sequence[LabeledModel], labels_file: Path, conf: Settings, progress: Progress) -> Pool:
    """Build the pool of a labels file: download repos, and read and verify every fine-tune once.

    The path of a folder is relative to the labels file or to the working directory. Raises `InvalidLabels` for a line
    that is neither a folder nor a repo id, and what the Hub and `read_finetune` raise, prefixed with the line number or
    the model.
    """
    hub = make_hub(conf)
    folders = []
    for number, model in enumerate(labeled):
        progress("reading", number, len(labeled))
        folder = _find_folder(model, labels_file, hub)
        _read(model.model, folder)
        folders.append(folder)
    names = _short_names([model.model for model in labeled])
    return Pool(names, tuple(model.label for model in labeled), tuple(folders))


def load_base(pool: Pool, folder: Path | None, conf: Settings, *, dtype: str, device: str) -> ResidentBase:
    """Load the base from `folder`, or the base that the pool's fine-tunes name if `folder` is None.

    Raises `InvalidLabels` if they name several bases, and what resolving and loading raise.
    """
    if folder is not None:
        return ResidentBase.load(folder, folder.resolve().name, content_sha(folder), dtype=dtype, device=device)
    resolver = BaseResolver(make_hub(conf), conf.bases_dir)
    bases = {}
    for name, finetune in zip(pool.names, pool.finetunes(), strict=True):
        try:
            base = resolver.resolve(finetune.base_claims, revision=finetune.declared_revision, shapes=finetune.shapes)
        except CatalogError as error:
            raise with_name(error, name) from error
        bases[base.repo, base.sha] = base
    if len(bases) > 1:
        names = ", ".join(sorted(repo for repo, _ in bases))
        raise InvalidLabels(f"The models have several bases ({names}); evaluate one base at a time.")
    base = next(iter(bases.values()))
    return ResidentBase.load(base.folder, base.repo, base.sha, dtype=dtype, device=device)


def make_hub(conf: Settings) -> Hub:
    return Hub(
        conf.hf_endpoint,
        conf.hf_token.get_secret_value() if conf.hf_token else None,
        conf.downloads_dir,
        timeout=conf.hub_timeout,
        max_file_bytes=conf.max_file_bytes,
        max_repo_files=conf.max_repo_files,
        budget=conf.downloads_budget or None,
    )


def _find_folder(labeled: LabeledModel, labels_file: Path, hub: Hub) -> Path:
    for folder in (labels_file.parent / labeled.model, Path(labeled.model)):
        if folder.is_dir():
            return folder
    line = f"Line {labeled.line} of {labels_file.name}"
    try:
        return hub.fetch_finetune(hub.resolve(RepoRef(labeled.model).repo_id))
    except InvalidRepoId:
        raise InvalidLabels(f"{line}: {labeled.model[:200]} is neither an existing folder nor a repo id.") from None
    except CatalogError as error:
        raise with_name(error, line) from error


def _read(name: str, folder: Path) -> FineTune:
    try:
        return read_finetune(folder)
    except CatalogError as error:
        raise with_name(error, name) from error


def _short_names(models: Sequence[str]) -> tuple[str, ...]:
    """The last part of each path or repo id if these are distinct, else the full ones."""
    short = [Path(model).name for model in models]
    return tuple(short if len(set(short)) == len(short) else models)
