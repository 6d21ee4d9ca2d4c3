"""How much of each module of a set, by the loss on a few examples, without a gradient: LoRAHub (arXiv 2307.13269)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from catalog.errors import CatalogError, UnsupportedAdapter
from workers.encoding import FineTune, ResidentBase
from workers.encoding.head import NAMES as HEADS
from workers.encoding.lora import fit, fit_head
from workers.encoding.lora_config import LoraModule
from workers.stopping import check
from workers.tuning.scoring import Losses, Scorer

# as LoRAHub has them (github.com/sail-sg/lorahub, lorahub/algorithm.py)
BOUND = 1.5  # of a weight, to either side
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


def compose(
    scorer: Scorer, sets: Sequence[Sequence[Part]], budget: int, tell: Callable[[float], None]
) -> list[Composed]:
    """For each set of parts the weights that say the scorer's examples best, of `budget` that NGOpt tries one after
    another; it starts with none of any. The sets advance together, so that their forwards are shared.

    `tell` is called with how much is done, from 0 to 1. Raises `Stopped`.
    """
    with _quietly():
        searches = [_Search(parts, budget) for parts in sets]
        for step in range(budget):
            check()
            asked = [search.ask() for search in searches]
            for search, result in zip(searches, scorer.finetunes(asked), strict=True):
                search.hear(result)
            tell((step + 1) / budget)
    return [search.best for search in searches]


class _Search:
    """One optimiser, and the best that it has found."""

    def __init__(self, parts: Sequence[Part], budget: int) -> None:
        import nevergrad as ng  # takes a second and a half, which other jobs need not wait for

        self._parts = parts
        space = ng.p.Array(init=np.zeros(len(parts))).set_bounds(-BOUND, BOUND)
        self._optimizer = ng.optimizers.NGOpt(parametrization=space, budget=budget)
        self._optimizer.parametrization.random_state = np.random.RandomState(0)
        self._least = math.inf
        self.best = Composed((0.0,) * len(parts), math.inf)

    def ask(self) -> FineTune:
        self._asked = self._optimizer.ask()
        return weighted(self._parts, self._asked.value.tolist())

    def hear(self, result: Losses | CatalogError) -> None:
        """Raises what is wrong with the parts, though each of them fits."""
        if isinstance(result, CatalogError):
            raise result
        weights = self._asked.value
        loss = result.per_token
        penalised = loss + PENALTY * float(np.abs(weights).sum()) if math.isfinite(loss) else OUT_OF_SIGHT
        if penalised < self._least:
            self._least, self.best = penalised, Composed(tuple(weights.tolist()), loss)
        self._optimizer.tell(self._asked, penalised)


def _sum(weighed: Sequence[tuple[LoraModule | None, float]]) -> LoraModule:
    present = [(module, weight) for module, weight in weighed if module is not None]
    a = torch.cat([module.a.float() for module, _ in present])
    b = torch.cat([module.b.float() * (weight * module.scale) for module, weight in present], dim=1)
    return LoraModule(a, b, 1.0, embedding=present[0][0].embedding)


@contextmanager
def _quietly() -> Iterator[None]:
    """The optimisers warn of settings of theirs, in threads of theirs, and then set them right themselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(nevergrad|scipy)\.")
        yield
