"""What a selection says of its arms, as it is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from catalog.selections.strategies import Arm
from catalog.tasks.uncertainty import CONFIDENCE


@dataclass(frozen=True)
class Tried:
    """One arm's set for one seed: (repo id, cosine to the task, weight) of each module; nats a token of the examples
    that it was composed on, and of those held back.
    """

    seed: int
    modules: tuple[tuple[str, float, float], ...]
    examples_loss: float
    held_out_loss: float

    def as_dict(self) -> dict[str, Any]:
        modules = [
            {"repo_id": repo_id, "similarity": round(similarity, 4), "weight": round(weight, 4)}
            for repo_id, similarity, weight in self.modules
        ]
        losses = {"examples_loss": round(self.examples_loss, 4), "held_out_loss": round(self.held_out_loss, 4)}
        return {"seed": self.seed, "modules": modules, **losses}


def arms(tried: Mapping[Arm, Sequence[Tried]]) -> list[dict[str, Any]]:
    """Of each arm its sets, their mean loss on examples held back, and the mean difference from random ones, seed by
    seed, where random is one of the arms.
    """
    losses = {arm: np.array([each.held_out_loss for each in some]) for arm, some in tried.items()}
    control = losses.get(Arm.RANDOM)
    return [
        {
            "arm": str(arm),
            "held_out_loss": mean(losses[arm]),
            "beside_random": None if control is None or arm is Arm.RANDOM else mean(losses[arm] - control),
            "sets": [each.as_dict() for each in some],
        }
        for arm, some in tried.items()
    ]


def mean(values: np.ndarray) -> dict[str, float | None]:
    """The mean (s,), and its interval at `CONFIDENCE` by Student's t; null bounds where there is but one value."""
    at = float(values.mean())
    if len(values) < 2:
        return {"mean": round(at, 4), "low": None, "high": None}
    wide = student.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return {"mean": round(at, 4), "low": round(at - wide, 4), "high": round(at + wide, 4)}
