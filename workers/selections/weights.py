"""How much of each module of a set, by the loss on a few examples, without a gradient: LoRAHub (arXiv 2307.13269)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize

from catalog.errors import CatalogError, UnsupportedAdapter
from workers.encoding.lora_path import fit, fit_head
from workers.encoding.output_head import NAMES as HEADS
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.lora_config import LoraModule
from workers.finetunes.reading import FineTune
from workers.process.cancellation import check
from workers.tasks.scoring import Scorer

# as LoRAHub has them (github.com/sail-sg/lorahub, lorahub/algorithm.py)
BOUND = 1.5  # of a weight, to either side
STEP = 1.0  # the first step from no weight, as NGOpt's Cobyla makes it
FINEST = 1e-2  # the last one
PENALTY = 0.05  # of the sum of the weights' magnitudes
OUT_OF_SIGHT = 1e6  # a loss for weights under which there is none


@dataclass(frozen=True, eq=False)
class Part:
    """A plain LoRA adapter that fits the base: its modules by their names there."""

    name: str
    finetune: FineTune
    modules: Mapping[str, LoraModule]


@dataclass(frozen=True)
class Composed:
    """The best weights (n,) that were tried, and their loss on the examples: nats a token, without the penalty."""

    weights: tuple[float, ...]
    loss: float


def part_of(name: str, finetune: FineTune, base: ResidentBase) -> Part:
    """Raises `UnsupportedAdapter` for what is no plain LoRA, `ShapeMismatch` for what does not fit the base."""
    if finetune.path != "lora":
        raise UnsupportedAdapter(f"{name} is no plain LoRA adapter, and has no weight in a sum of them.")
    modules, head = fit(finetune.modules, base.model), fit_head(finetune.modules, base)
    return Part(name, finetune, modules if head is None else {**modules, HEADS[0]: head})


def weighted(parts: Sequence[Part], weights: Sequence[float]) -> FineTune:
    """The sum of the parts' deltas, each times its weight, as one adapter: factors behind one another, ranks added."""
    names = dict.fromkeys(name for part in parts for name in part.modules)
    modules = {
        name: _sum([(part.modules.get(name), w) for part, w in zip(parts, weights, strict=True)]) for name in names
    }
    return replace(
        parts[0].finetune, name="+".join(part.name for part in parts), tensors={}, shapes={}, modules=modules
    )


def compose(scorer: Scorer, parts: Sequence[Part], budget: int, tell: Callable[[float], None]) -> Composed:
    """The weights that say the scorer's examples best, of at most `budget` that COBYLA tries one after another; it
    begins with none of any, and then has one of each.

    `tell` is called with how much is done, from 0 to 1. Raises `Stopped`, and what is wrong with the parts.
    """
    least, best, tries = math.inf, Composed((0.0,) * len(parts), math.inf), 0

    def loss_of(asked: np.ndarray) -> float:
        nonlocal least, best, tries
        check()
        weights = asked.clip(-BOUND, BOUND)  # bounds are constraints to it, which it may break by a little
        [result] = scorer.finetunes([weighted(parts, weights.tolist())])
        if isinstance(result, CatalogError):
            raise result
        loss = result.per_token
        penalised = loss + PENALTY * float(np.abs(weights).sum()) if math.isfinite(loss) else OUT_OF_SIGHT
        if penalised < least:
            least, best = penalised, Composed(tuple(weights.tolist()), loss)
        tries += 1
        tell(min(1.0, tries / budget))
        return penalised

    options = {"rhobeg": STEP, "tol": FINEST, "maxiter": max(budget, len(parts) + 2)}  # it does with no fewer
    minimize(loss_of, np.zeros(len(parts)), method="COBYLA", bounds=[(-BOUND, BOUND)] * len(parts), options=options)
    return best


def _sum(weighed: Sequence[tuple[LoraModule | None, float]]) -> LoraModule:
    present = [(module, weight) for module, weight in weighed if module is not None]
    a = torch.cat([module.a.float() for module, _ in present])
    b = torch.cat([module.b.float() * (weight * module.scale) for module, weight in present], dim=1)
    return LoraModule(a, b, 1.0, embedding=present[0][0].embedding)
