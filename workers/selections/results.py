"""The result of one strategy, as it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workers.selections.members import Member


@dataclass(frozen=True)
class TrialResult:
    """The set of one strategy with its weights (n,), and its losses in nats per token: on the examples that the weights
    were chosen by, and on the holdout.
    """

    strategy: str
    members: Sequence[Member]
    weights: Sequence[float]
    examples_loss: float
    holdout_loss: float

    def as_dict(self) -> dict[str, Any]:
        members = [
            {
                "repo_id": member.adapter.name,
                "similarity": round(member.similarity, 4),
                "weight": round(weight, 4),
            }
            for member, weight in zip(self.members, self.weights, strict=True)
        ]
        return {
            "strategy": self.strategy,
            "members": members,
            "examples_loss": round(self.examples_loss, 4),
            "holdout_loss": round(self.holdout_loss, 4),
        }
