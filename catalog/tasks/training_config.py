"""How the small adapter of a task is trained: part of what its vector means, as a space's settings are."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

VERSION = "2"  # changes when the same settings give other adapters


@dataclass(frozen=True)
class Recipe:
    """A LoRA of `rank` on the projections to queries and values, where the base has such (else on PEFT's choice for
    its architecture, else on all linear layers). AdamW without weight decay at a `rate` that falls to 0 in a line,
    gradients cut at norm 1, `batch` examples of near length a step; `passes` times through them in random order, but
    at least `least_steps` and at most `most_steps`. An example is at most `tokens` long, and the loss is on its output
    alone.

    `docs/tasks.md` says how these were chosen.
    """

    rank: int = 8
    alpha: int = 16
    rate: float = 2e-3
    batch: int = 2
    passes: int = 2
    least_steps: int = 10
    most_steps: int = 100
    tokens: int = 176
    version: str = VERSION

    def steps(self, examples: int) -> int:
        return min(max(self.least_steps, math.ceil(self.passes * examples / self.batch)), self.most_steps)

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)
