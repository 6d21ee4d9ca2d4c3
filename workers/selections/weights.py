"""Gradient-free search for the weights of a set of adapters by the loss on examples (LoRAHub, arXiv 2307.13269)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize

from catalog.errors import CatalogError, UnsupportedAdapter
from workers.encoding.lora_path import fit, fit_head
from workers.encoding.output_head import HEAD_NAMES
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.lora_config import LoraModule
from workers.finetunes.reading import FineTune
from workers.process.cancellation import raise_if_cancelled
from workers.tasks.scoring import Scorer

# the values of LoRAHub (github.com/sail-sg/lorahub, lorahub/algorithm.py)
MAX_WEIGHT = 1.5  # in magnitude
INITIAL_STEP = 1.0  # of COBYLA, as in nevergrad's NGOpt
FINAL_STEP = 1e-2
PENALTY = 0.05  # for each unit of the sum of the weights' magnitudes
NON_FINITE_LOSS = 1e6  # in place of an infinite loss, which COBYLA does not accept


@dataclass(frozen=True, eq=False)
class Adapter:
    """A plain LoRA adapter that fits the base: its modules by their names in the base."""

    name: str
    finetune: FineTune
    modules: Mapping[str, LoraModule]


@dataclass(frozen=True)
class Composition:
    """The best weights (n,) that were tried, and their loss on the examples in nats per token, without the penalty."""

    weights: tuple[float, ...]
    loss: float


def fit_adapter(name: str, finetune: FineTune, base: ResidentBase) -> Adapter:
    """Raises `UnsupportedAdapter` if it is not a plain LoRA adapter, `ShapeMismatch` if it does not fit the base."""
    if finetune.path != "lora":
        raise UnsupportedAdapter(f"{name} is not a plain LoRA adapter, so its delta cannot be added to others.")
    modules, head = fit(finetune.modules, base.model), fit_head(finetune.modules, base)
    return Adapter(name, finetune, modules if head is None else {**modules, HEAD_NAMES[0]: head})


def weighted_sum(adapters: Sequence[Adapter], weights: Sequence[float]) -> FineTune:
    """The sum of the adapters' deltas, each times its weight, as one adapter: factors are concatenated, ranks added."""
    names = dict.fromkeys(name for adapter in adapters for name in adapter.modules)
    modules = {
        name: _sum([(adapter.modules.get(name), weight) for adapter, weight in zip(adapters, weights, strict=True)])
        for name in names
    }
    name = "+".join(adapter.name for adapter in adapters)
    return replace(adapters[0].finetune, name=name, tensors={}, shapes={}, modules=modules)


def compose(
    scorer: Scorer, adapters: Sequence[Adapter], budget: int, on_progress: Callable[[float], None]
) -> Composition:
    """Search for the weights with the least loss on the scorer's examples, with at most `budget` tries of COBYLA. The
    first try has all weights 0, the next ones set one of them to `INITIAL_STEP`.

    `on_progress` is called with the share that is done, from 0 to 1. Raises `Cancelled`, and errors of the adapters.
    """
    least_penalized, best, tries = math.inf, Composition((0.0,) * len(adapters), math.inf), 0

    def penalized_loss(proposed: np.ndarray) -> float:
        nonlocal least_penalized, best, tries
        raise_if_cancelled()
        weights = proposed.clip(-MAX_WEIGHT, MAX_WEIGHT)  # COBYLA may violate its bounds by a little
        [result] = scorer.finetunes([weighted_sum(adapters, weights.tolist())])
        if isinstance(result, CatalogError):
            raise result
        loss = result.per_token
        penalized = loss + PENALTY * float(np.abs(weights).sum()) if math.isfinite(loss) else NON_FINITE_LOSS
        if penalized < least_penalized:
            least_penalized, best = penalized, Composition(tuple(weights.tolist()), loss)
        tries += 1
        on_progress(min(1.0, tries / budget))
        return penalized

    count = len(adapters)
    options = {"rhobeg": INITIAL_STEP, "tol": FINAL_STEP, "maxiter": max(budget, count + 2)}  # COBYLA's own minimum
    bounds = [(-MAX_WEIGHT, MAX_WEIGHT)] * count
    minimize(penalized_loss, np.zeros(count), method="COBYLA", bounds=bounds, options=options)
    return best


def _sum(weighted: Sequence[tuple[LoraModule | None, float]]) -> LoraModule:
    present = [(module, weight) for module, weight in weighted if module is not None]
    a = torch.cat([module.a.float() for module, _ in present])
    b = torch.cat([module.b.float() * (weight * module.scale) for module, weight in present], dim=1)
    return LoraModule(a, b, 1.0, embedding=present[0][0].embedding)
