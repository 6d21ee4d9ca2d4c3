"""The parts of a merge, and checks of whether they can be merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog.auth.viewer import Viewer
from catalog.errors import MergeIncompatible, NotIndexed
from catalog.merges.methods import MAX_RANK, MergeSpec
from catalog.models.repository import models
from catalog.tables import Model, Revision
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import StoredEncoding

MERGEABLE_KINDS = ("lora", "adalora")
UNSUPPORTED_WEIGHTS = (
    "{name} contains weights other than LoRA pairs (whole modules or embeddings, trained biases or tokens, experts), "
    "which PEFT silently drops when merging. Merge the whole models with mergekit instead."
)


@dataclass(frozen=True)
class Part:
    """A model of the merge, its weight, and its vectors by space id."""

    model: Model
    revision: Revision
    weight: float
    vectors: Mapping[int, StoredEncoding]

    @property
    def name(self) -> str:
        return self.model.repo_id

    @property
    def ranks(self) -> list[int] | None:
        """The distinct ranks of its modules; None if the revision was indexed before ranks were stored."""
        return (self.revision.facts or {}).get("ranks")


def load(session: Session, spec: MergeSpec, viewer: Viewer) -> list[Part]:
    """The parts of a merge spec, in its order.

    Raises `ModelNotFound`, `NotIndexed`, and `MergeIncompatible` if they cannot be merged as the spec says.
    """
    parts = [_load_part(session, repo_id, weight, viewer) for repo_id, weight in spec.weights.items()]
    _check_same_base(parts)
    for part in parts:
        _check_kind(part)
    check_ranks(spec, {part.name: part.ranks for part in parts if part.ranks is not None})
    return parts


def check_ranks(spec: MergeSpec, ranks: Mapping[str, Sequence[int]]) -> None:
    """Check the known ranks of the parts, by the parts' names.

    Raises `MergeIncompatible` if the method combines factors and the ranks differ, or if the rank of the result would
    exceed `MAX_RANK`.
    """
    if spec.definition.combines_factors and len({rank for part_ranks in ranks.values() for rank in part_ranks}) > 1:
        listing = ", ".join(f"{name} has {'/'.join(map(str, part_ranks))}" for name, part_ranks in ranks.items())
        raise MergeIncompatible(
            f"The method {spec.method} combines A and B separately and needs equal ranks, but {listing}. Use cat or "
            "svd, which combine products."
        )
    if (rank := result_rank(spec, ranks.values())) > MAX_RANK:
        raise MergeIncompatible(
            f"The result of {spec.method} would have rank {rank:,}; the maximum is {MAX_RANK}. Use svd with a lower "
            "`rank`."
        )


def result_rank(spec: MergeSpec, ranks: Iterable[Sequence[int]]) -> int:
    """The rank of the result, given the ranks of each part."""
    if spec.definition.truncates_rank and spec.rank is not None:
        return spec.rank
    max_ranks = [max(part_ranks, default=0) for part_ranks in ranks]
    return sum(max_ranks) if spec.method == "cat" else max(max_ranks, default=0)


def _load_part(session: Session, repo_id: str, weight: float, viewer: Viewer) -> Part:
    model = models.get(session, repo_id, viewer)
    encodings = {encoding.space.id: encoding for encoding in vectors.list_encodings(session, model)}
    if model.revision is None or not encodings:
        raise NotIndexed(f"{repo_id} has no vector yet (its state is {model.state}). See its job for the reason.")
    if model.private:
        raise MergeIncompatible(
            f"{repo_id} is private: its files cannot be fetched again, since Hub tokens are not stored. Merge it where "
            "you have the files."
        )
    return Part(model, model.revision, weight, encodings)


def _check_same_base(parts: Sequence[Part]) -> None:
    first = parts[0]
    if len({part.model.id for part in parts}) < len(parts):
        raise MergeIncompatible("A model occurs twice among the parts. List it once, with the sum of its weights.")
    for part in parts[1:]:
        revision, expected = part.revision, first.revision
        if revision.base_repo != expected.base_repo:
            raise MergeIncompatible(
                f"{part.name} is a fine-tune of {revision.base_repo}, but {first.name} is one of {expected.base_repo}. "
                "Only adapters of the same base can be merged."
            )
        if revision.base_sha != expected.base_sha:
            raise MergeIncompatible(
                f"{part.name} and {first.name} were measured on different commits of {revision.base_repo} "
                f"({revision.base_sha[:12]}, {expected.base_sha[:12]}). Reindex them first."
            )


def _check_kind(part: Part) -> None:
    kind, facts = part.revision.kind, part.revision.facts or {}
    if kind == "dora":
        raise MergeIncompatible(
            f"{part.name} is a DoRA. PEFT would drop its magnitudes, which belong to its own direction, and give a "
            "different result. Merge the whole models with mergekit instead."
        )
    if kind not in MERGEABLE_KINDS:
        raise MergeIncompatible(
            f"{part.name} is of kind {kind}, but only LoRA adapters can be merged. Merge the whole models with "
            "mergekit instead."
        )
    if facts.get("path", "lora") != "lora":
        raise MergeIncompatible(UNSUPPORTED_WEIGHTS.format(name=part.name))
