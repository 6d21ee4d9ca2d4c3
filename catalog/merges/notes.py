"""What somebody should know of a merge before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.merges.methods import Blend
from catalog.merges.parts import Part
from catalog.tables import SpaceRow

# cosines of raw vectors: of examples/pool the least of one domain is 0.85, the greatest of two 0.78 (docs/merging.md)
ALIKE = 0.8
OPPOSED = 0.0


@dataclass(frozen=True)
class Pair:
    """Two parts (by their places) and the cosine of their vectors as they are."""

    first: int
    second: int
    cosine: float


@dataclass(frozen=True)
class Note:
    """`code` is stable."""

    code: str
    message: str


def of_pairs(parts: Sequence[Part], pairs: Sequence[Pair]) -> list[Note]:
    notes = []
    for pair in pairs:
        first, second = parts[pair.first], parts[pair.second]
        acting = pair.cosine if first.weight * second.weight > 0 else -pair.cosine  # as they go into the sum
        names, told = f"{first.name} and {second.name}", f"cosine {pair.cosine:.2f}"
        if acting > ALIKE:
            notes.append(
                Note("alike", f"{names} did nearly the same to their base ({told}): little is gained by both.")
            )
        elif acting < OPPOSED:
            notes.append(
                Note("opposed", f"{names} work against each other with these weights ({told}): they cancel in part.")
            )
    return notes


def of_parts(parts: Sequence[Part], space: SpaceRow) -> list[Note]:
    notes = []
    for part in parts:
        if part.vectors[space.id].no_shift:
            notes.append(
                Note("no_shift", f"{part.name} does not move its base measurably: what it adds here is noise.")
            )
        if (part.revision.facts or {}).get("rslora"):
            notes.append(
                Note(
                    "rslora",
                    f"{part.name} is an rsLoRA, scaled by the root of its rank. PEFT's own merge hands that on where "
                    "such a part comes first, and is too strong by the root of the new rank; here its scale is taken "
                    "into account, and the result is a plain LoRA.",
                )
            )
    unknown = [part.name for part in parts if part.ranks is None]
    if unknown:
        notes.append(
            Note("unknown", f"Ranks are not known of {', '.join(unknown)}: the job finds out whether they fit.")
        )
    licences = {part.model.licence for part in parts}
    if len(licences) > 1:
        told = ", ".join(f"{part.name}: {part.model.licence or 'none known'}" for part in parts)
        notes.append(Note("licences", f"The parts stand under different licences ({told})."))
    return notes


def of_method(blend: Blend, parts: Sequence[Part], rank: int | None) -> list[Note]:
    how, notes = blend.how, []
    if how.factors:
        notes.append(
            Note(
                "cross_terms",
                f"The method {how.name} combines A and B each by themselves. Their product also holds B of one part "
                "times A of another, which none has learned; cat and the methods that end in svd have no such terms.",
            )
        )
    if how.elects:
        notes.append(
            Note("averages", "TIES averages where signs agree, so the merge is shorter than the sum that is predicted.")
        )
        if any(part.weight < 0 for part in parts):
            notes.append(
                Note(
                    "signs_before_weights",
                    "TIES elects signs before it weighs: a part with a negative weight votes as if it were added.",
                )
            )
    known = [part.ranks for part in parts]
    whole = sum(max(each, default=0) for each in known if each is not None)
    if blend.method == "svd" and rank is not None and None not in known and rank < whole:
        notes.append(
            Note("cut", f"An SVD keeps rank {rank}; the sum may have {whole}. Ask `rank` {whole} to keep all of it.")
        )
    return notes
