"""The training recipes: forty supervised fine-tunes and nine by preference, with mixed settings in every domain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.hard_pool.domains import DOMAINS

RANKS = (2, 8, 16, 64)
RATES = (2e-4, 5e-4, 1e-3)
TARGETS = ("qv", "all")
PREFERENCES = ("short", "list", "plain")
SPLITS = 3
PAIRS, PAIR_EPOCHS = 40, 2
# (domain, slot) of the fine-tunes that are not LoRA
OTHER_KINDS = {
    ("legal-clauses", 2): "full",
    ("medical-questions", 1): "full",
    ("math-easy", 1): "dora",
    ("code-functions", 2): "dora",
    ("math-hard", 0): "ia3",
    ("passage-scenes", 1): "ia3",
}
RATES_OF_KINDS = {"full": 3e-5, "ia3": 1e-2}


@dataclass(frozen=True)
class Recipe:
    """One fine-tune. `label` is its domain or preference, of which rows `first` to `first + rows` are trained on."""

    name: str
    label: str
    kind: str  # lora, dora, ia3, full, or dpo (a LoRA)
    rank: int  # 0 if the kind has none
    targets: str
    rate: float
    first: int
    rows: int
    epochs: int


def recipes() -> list[Recipe]:
    """All recipes, ordered so that every domain has its first fine-tune before any domain has its second."""
    supervised = [_slots(index) for index in range(len(DOMAINS))]
    preferred = [_split(split) for split in range(SPLITS)]
    ordered: list[Recipe] = []
    for slot in range(len(supervised[0])):
        ordered += [slots[slot] for slots in supervised]
        ordered += preferred[slot] if slot < SPLITS else []
    return ordered


def _slots(index: int) -> list[Recipe]:
    """The four recipes of a domain. Settings rotate from domain to domain, so that none of them reveals the domain."""
    domain, first = DOMAINS[index], 0
    slots = []
    for slot in range(len(domain.sizes)):
        rows, epochs = domain.sizes[(slot + index // 3) % len(domain.sizes)]
        kind = OTHER_KINDS.get((domain.name, slot), "lora")
        slots.append(
            Recipe(
                name=f"{domain.name}-{slot + 1}",
                label=domain.name,
                kind=kind,
                rank=RANKS[(slot + index) % 4] if kind in ("lora", "dora") else 0,
                targets=TARGETS[(slot + index // 4) % 2] if kind == "lora" else "qv" if kind == "dora" else kind,
                rate=RATES_OF_KINDS.get(kind, RATES[(2 * slot + index) % 3]),
                first=first,
                rows=rows,
                epochs=epochs,
            )
        )
        first += rows
    return slots


def _split(split: int) -> Iterator[Recipe]:
    for preference in PREFERENCES:
        name = f"prefers-{preference}-{split + 1}"
        yield Recipe(name, f"prefers-{preference}", "dpo", 8, "qv", 5e-4, split * PAIRS, PAIRS, PAIR_EPOCHS)
