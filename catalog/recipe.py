"""How the small adapter of a task is trained: part of what its vector means, as a space's settings are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

VERSION = "1"  # changes when the same settings give other adapters


@dataclass(frozen=True)
class Recipe:
    """A LoRA of `rank` on the projections to queries and values, where the base has such (else on PEFT's choice for
    its architecture, else on all linear layers). AdamW without weight decay at a constant `rate`, gradients cut at
    norm 1, `batch` rows of near length a step, `steps` of them through the rows in random order; a row is at most
    `tokens` long, and the loss is on its output alone.

    `docs/tasks.md` says how these were chosen.
    """

    rank: int = 8
    alpha: int = 16
    rate: float = 2e-3
    batch: int = 2
    steps: int = 10
    tokens: int = 176
    version: str = VERSION

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)
