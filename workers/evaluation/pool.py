"""A labelled pool: its fine-tunes on this machine, and the one base that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalog.errors import CatalogError, InvalidLabels, InvalidRepoId
from catalog.models.repo_ref import RepoRef
from catalog.settings import Settings
from workers.bases.resolver import BaseResolver
from workers.embed import named
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.labels import Labelled
from workers.evaluation.measures import Ints
from workers.finetunes.content import content_sha
from workers.finetunes.reading import FineTune, read_finetune
from workers.hub.client import Hub

Tell = Callable[[str, int, int], None]  # what is done, how much of it, of how much


@dataclass(frozen=True)
class Pool:
    """Models in the order of their lines; weights are read when they are asked for."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    folders: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def groups(self) -> list[str]:
        """The labels that there are, sorted."""
        return sorted(set(self.labels))

    @property
    def numbers(self) -> Ints:
        """Each model's label as a place in `groups`, (n,)."""
        return np.array([self.groups.index(label) for label in self.labels])

    def finetunes(self) -> Iterator[FineTune]:
        """Raises what `read_finetune` raises, named."""
        for name, folder in zip(self.names, self.folders, strict=True):
            yield _read(name, folder)

    def batches(self, size: int) -> Iterator[list[FineTune]]:
        for start in range(0, len(self), size):
            yield [_read(*each) for each in zip(self.names[start : start + size], self.folders[start:], strict=False)]


def gather(labelled: Sequence[Labelled], labels_file: Path, conf: Settings, tell: Tell) -> Pool:
    """The pool of a labels file: folders as they are, repos downloaded, each read and verified once.

    A folder may be given from where the file lies or from the working directory. Raises `InvalidLabels` for a line
    that is neither a folder nor a repo id, and what the Hub and `read_finetune` raise, named.
    """
    hub = make_hub(conf)
    folders = []
    for number, each in enumerate(labelled):
        tell("reading", number, len(labelled))
        folder = _folder(each, labels_file, hub)
        _read(each.model, folder)
        folders.append(folder)
    return Pool(_short_names([each.model for each in labelled]), tuple(each.label for each in labelled), tuple(folders))


def load_base(pool: Pool, folder: Path | None, conf: Settings, *, dtype: str, device: str) -> ResidentBase:
    """The base in a folder, or without one the base that the pool's fine-tunes name.

    Raises `InvalidLabels` where they name several, and what resolving and loading raise.
    """
    if folder is not None:
        return ResidentBase.load(folder, folder.resolve().name, content_sha(folder), dtype=dtype, device=device)
    resolver = BaseResolver(make_hub(conf), conf.bases_dir)
    found = {}
    for name, finetune in zip(pool.names, pool.finetunes(), strict=True):
        try:
            base = resolver.resolve(
                declared=finetune.declared_base, card_base=finetune.card_base, shapes=finetune.shapes
            )
        except CatalogError as error:
            raise named(error, name) from error
        found[base.repo, base.sha] = base
    if len(found) > 1:
        names = ", ".join(sorted(repo for repo, _ in found))
        raise InvalidLabels(f"The models have several bases ({names}); evaluate those of one base at a time.")
    base = next(iter(found.values()))
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


def _folder(each: Labelled, labels_file: Path, hub: Hub) -> Path:
    for place in (labels_file.parent / each.model, Path(each.model)):
        if place.is_dir():
            return place
    try:
        return hub.fetch_finetune(hub.resolve(RepoRef(each.model).repo_id))
    except InvalidRepoId:
        raise InvalidLabels(
            f"Line {each.line} of {labels_file.name}: {each.model[:200]} is no folder here, and no repo id of the Hub."
        ) from None
    except CatalogError as error:
        raise named(error, f"Line {each.line} of {labels_file.name}") from error


def _read(name: str, folder: Path) -> FineTune:
    try:
        return read_finetune(folder)
    except CatalogError as error:
        raise named(error, name) from error


def _short_names(models: Sequence[str]) -> tuple[str, ...]:
    """The last part of each path or repo id, where that tells all apart."""
    short = [Path(model).name for model in models]
    return tuple(short if len(set(short)) == len(short) else models)
