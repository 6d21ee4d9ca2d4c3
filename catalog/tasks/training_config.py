"""How the small adapter of a task is trained. Like a contract, it determines what the task's vector means."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

VERSION = "2"  # changes when the same settings give other adapters


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a LoRA on the query and value projections, if the base has them (else on PEFT's defaults for its
    architecture, else on all linear layers).

    The optimizer is AdamW without weight decay; the learning rate falls linearly to 0, and gradients are clipped at
    norm 1. A batch holds examples of similar length. Training takes `epochs` passes through the examples in random
    order, but at least `min_steps` and at most `max_steps` steps. An example is cut to `max_tokens`, and the loss is
    that of its output alone. `docs/tasks.md` says how these values were chosen.
    """

    rank: int = 8
    alpha: int = 16
    learning_rate: float = 2e-3
    batch_size: int = 2
    epochs: int = 2
    min_steps: int = 10
    max_steps: int = 100
    max_tokens: int = 176
    version: str = VERSION

    def steps(self, examples: int) -> int:
        return min(max(self.min_steps, math.ceil(self.epochs * examples / self.batch_size)), self.max_steps)

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)
