"""The parts of a merge, as the catalog knows them, and whether they can be merged at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog.auth.viewer import Viewer
from catalog.errors import MergeIncompatible, NotIndexed
from catalog.merges.methods import MAX_RANK, Blend
from catalog.models.repository import models
from catalog.tables import Model, Revision
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import Stored

MERGED_KINDS = ("lora", "adalora")
MORE_THAN_PAIRS = (
    "{name} brings more than low-rank pairs (whole modules or embeddings, trained biases or tokens, experts), which "
    "PEFT would leave out of a merge without a word. Merge whole models, with mergekit."
)


@dataclass(frozen=True)
class Part:
    """A model of the merge, its weight, and its vectors by the id of their space."""

    model: Model
    revision: Revision
    weight: float
    vectors: Mapping[int, Stored]

    @property
    def name(self) -> str:
        return self.model.repo_id

    @property
    def ranks(self) -> list[int] | None:
        """Of its modules, each once; None where the revision was indexed before these were stored."""
        return (self.revision.facts or {}).get("ranks")


def read(session: Session, blend: Blend, viewer: Viewer) -> list[Part]:
    """Raises `ModelNotFound`, `NotIndexed`, and `MergeIncompatible` where they cannot be merged as the blend says."""
    parts = [_part(session, repo_id, weight, viewer) for repo_id, weight in blend.weights.items()]
    _check_same_base(parts)
    for part in parts:
        _check_kind(part)
    check_ranks(blend, {part.name: part.ranks for part in parts if part.ranks is not None})
    return parts


def check_ranks(blend: Blend, ranks: Mapping[str, Sequence[int]]) -> None:
    """By the parts' names, those of which they are known. Raises `MergeIncompatible` where the method works on A and B
    and has not one rank alone, and where the result's rank is above `MAX_RANK`.
    """
    if blend.how.factors and len({rank for each in ranks.values() for rank in each}) > 1:
        told = ", ".join(f"{name} has {'/'.join(map(str, each))}" for name, each in ranks.items())
        raise MergeIncompatible(
            f"The method {blend.method} adds up factors of one rank, and these differ: {told}. Take cat or svd, which "
            "add up products."
        )
    if (rank := rank_of(blend, ranks.values())) > MAX_RANK:
        raise MergeIncompatible(
            f"By {blend.method} the result would be of rank {rank:,}, and {MAX_RANK} is the most. Take svd, and name a "
            "rank."
        )


def rank_of(blend: Blend, ranks: Iterable[Sequence[int]]) -> int:
    """That of the result, by the ranks of each part."""
    if blend.how.cuts and blend.rank is not None:
        return blend.rank
    greatest = [max(each, default=0) for each in ranks]
    return sum(greatest) if blend.method == "cat" else max(greatest, default=0)


def _part(session: Session, repo_id: str, weight: float, viewer: Viewer) -> Part:
    model = models.get(session, repo_id, viewer)
    found = {stored.space.id: stored for stored in vectors.in_spaces(session, model)}
    if model.revision is None or not found:
        raise NotIndexed(f"{repo_id} has no vector yet (it is {model.state}). Look at its job for the reason.")
    if model.private:
        raise MergeIncompatible(
            f"{repo_id} is private, and the token that it was read with has been forgotten: its files cannot be "
            "fetched again. Merge it where you have them."
        )
    return Part(model, model.revision, weight, found)


def _check_same_base(parts: Sequence[Part]) -> None:
    first = parts[0]
    if len({part.model.id for part in parts}) < len(parts):
        raise MergeIncompatible("A model stands twice among the parts: name it once, with the sum of its weights.")
    for part in parts[1:]:
        mine, yours = part.revision, first.revision
        if mine.base_repo != yours.base_repo:
            raise MergeIncompatible(
                f"{part.name} is a fine-tune of {mine.base_repo}, {first.name} of {yours.base_repo}: only adapters of "
                "one base can be merged."
            )
        if mine.base_sha != yours.base_sha:
            raise MergeIncompatible(
                f"{part.name} and {first.name} were measured on different commits of {mine.base_repo} "
                f"({mine.base_sha[:12]}, {yours.base_sha[:12]}): reindex them first."
            )


def _check_kind(part: Part) -> None:
    kind, facts = part.revision.kind, part.revision.facts or {}
    if kind == "dora":
        raise MergeIncompatible(
            f"{part.name} is a DoRA. Its magnitudes belong to its own direction: PEFT would leave them out and give "
            "something else. Merge whole models, with mergekit."
        )
    if kind not in MERGED_KINDS:
        raise MergeIncompatible(
            f"{part.name} is of the kind {kind}, and only LoRAs can be merged here. Merge whole models, with mergekit."
        )
    if facts.get("path", "lora") != "lora":
        raise MergeIncompatible(MORE_THAN_PAIRS.format(name=part.name))
