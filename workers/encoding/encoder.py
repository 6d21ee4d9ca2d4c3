"""(base, probes, fine-tunes) -> vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from catalog.errors import CatalogError, InvalidInput, NonFiniteVector
from catalog.spaces.contract import Space
from catalog.spaces.probes import ProbeSet
from workers.encoding import kernels
from workers.encoding.continuations import CONTINUATIONS
from workers.encoding.explanation import Explanation, explain
from workers.encoding.features import Feature, find_feature
from workers.encoding.features.base import MIDDLE
from workers.encoding.full_path import FullPath
from workers.encoding.guard import BaseGuard
from workers.encoding.lora_path import LoraPath
from workers.encoding.peft_path import PeftPath
from workers.encoding.prompt_path import PromptPath
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan, plan_tokens
from workers.encoding.trace import Trace, join, run
from workers.finetunes.finetune import FineTune

ENCODER_VERSION = "1"
EXPLAINED = "delta_activations"
PART_TOKENS = 4096  # of one model in a forward; larger probe sets are run in parts
FLOOR_BATCHES = (1, 2, 3)  # models in a forward
FLOOR_SAFETY = 4.0  # a vector this many times its noise has a cosine of 0.97 to itself without noise


@dataclass(frozen=True, eq=False)
class Encoding:
    """One fine-tune's vectors by feature, (d,) float32 each, and their Euclidean norms.

    `explanation` comes with `delta_activations` after the final norm, which alone the output head can read.
    """

    vectors: dict[str, np.ndarray]
    norms: dict[str, float]
    explanation: Explanation | None = None


class EncodingPath(Protocol):
    """A way to encode: one trace or error for each fine-tune, in order."""

    def traces(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> Sequence[Trace | CatalogError]: ...


class Encoder:
    """Measures fine-tunes of one base with one probe set; holds the base's own tables once they are known."""

    def __init__(
        self,
        base: ResidentBase,
        probes: ProbeSet,
        features: Sequence[str] = ("delta_activations",),
        *,
        layer: int | float = -1,
        full_memory: int | None = None,
    ) -> None:
        """`layer` counts `hidden_states` (-1: after the final norm); a fraction counts from the embeddings to there.

        `full_memory` is what a full fine-tune may take in bytes (None: what is free); one beyond it is streamed.

        Raises `UnknownFeature`, `InvalidProbeSet`, `InvalidInput`, and `UnsupportedBase` where a feature reads
        through an output head that the base has not.
        """
        self.base = base
        self.probes = probes
        self.features = [find_feature(name) for name in features]
        self.layer = resolve_layer(layer, base.layers)
        self._plan = self._plan_for(self.features)
        self._parts = list(self._plan.parts(PART_TOKENS))
        self._guard = BaseGuard(base.model)
        self._paths: dict[str, EncodingPath] = {
            "lora": LoraPath(base),
            "peft": PeftPath(base, self._guard),
            "prompt": PromptPath(base),
            "full": FullPath(base, full_memory),
        }
        self._tables: dict[str, Tensor] | None = None

    @property
    def disturbed(self) -> bool:
        """Whether an adapter left its traces in the base, which must then be loaded again."""
        return self._guard.disturbed

    def space(self, feature: str) -> Space:
        """The contract that this encoder's vectors of one feature stand under; raises `UnknownFeature`."""
        found, base = find_feature(feature), self.base
        space = contract(found, self.layer, self.probes.sha256, base.dtype)
        return space if found.across_bases else replace(space, base_repo=base.repo, base_sha=base.sha)

    def measure_base(self) -> dict[str, np.ndarray]:
        """The base's own table of each feature, (N, d) float32; used from here on."""
        with kernels.exact(self.base.model):
            tables = self._measure_base(models=1)
        self._tables = tables
        return {name: table.cpu().numpy() for name, table in tables.items()}

    def use_base(self, tables: Mapping[str, np.ndarray]) -> None:
        """Takes tables that `measure_base` gave in the same spaces, in place of measuring again."""
        self._tables = {
            name: torch.tensor(table, dtype=torch.float32, device=self.base.device) for name, table in tables.items()
        }

    def noise_floor(self) -> dict[str, float]:
        """Per feature, the norm under which a shift is rounding and no learning.

        `FLOOR_SAFETY` times the largest norm that the base itself gets when it is encoded like a fine-tune, in several
        batch shapes; at least what another machine's kernels may differ by, one rounding step a layer.
        """
        base = self._base_tables()
        step = torch.finfo(torch.float32).eps * self.base.layers
        floors = {name: step * _shift_norm(name, 2 * table, table) for name, table in base.items()}
        for models in FLOOR_BATCHES:
            for name, table in self._measure_base(models).items():
                floors[name] = max(floors[name], FLOOR_SAFETY * _shift_norm(name, table, base[name]))
        return floors

    def encode(self, finetunes: Sequence[FineTune]) -> list[Encoding | CatalogError]:
        """One result for each fine-tune, in order. What is wrong with one becomes its result and spoils no other."""
        traces = self._traces(finetunes, self._plan, self._parts)
        return self._explained([each if isinstance(each, CatalogError) else self._encoding(each) for each in traces])

    def trace(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> list[Trace | CatalogError]:
        """What each fine-tune's forward leaves of a plan of the caller's, in order, or what is wrong with it."""
        return self._traces(finetunes, plan, list(plan.parts(PART_TOKENS)))

    def trace_base(self, plan: TokenPlan) -> Trace:
        """What the base's own forward leaves of a plan of the caller's."""
        trace = join(plan, [run(self.base.model, part, 1)[0] for part in plan.parts(PART_TOKENS)])
        return replace(trace, head=self.base.head) if plan.head else trace

    def _traces(
        self, finetunes: Sequence[FineTune], plan: TokenPlan, parts: Sequence[TokenPlan]
    ) -> list[Trace | CatalogError]:
        results: dict[int, Trace | CatalogError] = {}
        for path in dict.fromkeys(finetune.path for finetune in finetunes):
            places = [place for place, finetune in enumerate(finetunes) if finetune.path == path]
            some = [finetunes[place] for place in places]
            of_parts = zip(*(self._paths[path].traces(some, part) for part in parts), strict=True)
            results.update(zip(places, (self._joined(plan, found) for found in of_parts), strict=True))
        return [results[place] for place in range(len(finetunes))]

    def _joined(self, plan: TokenPlan, parts: Sequence[Trace | CatalogError]) -> Trace | CatalogError:
        """A fine-tune's trace of the whole plan, or its first error."""
        errors = [part for part in parts if isinstance(part, CatalogError)]
        if errors:
            return errors[0]
        trace = join(plan, [part for part in parts if isinstance(part, Trace)])
        return replace(trace, head=self.base.head) if plan.head and trace.head is None else trace

    def _encoding(self, trace: Trace) -> Encoding | CatalogError:
        base, vectors = self._base_tables(), {}
        for name, table in self._read(trace).items():
            vector = find_feature(name).vector(table, base[name])
            if not torch.isfinite(vector).all():
                return NonFiniteVector(f"{name} came out with NaN or infinity.")
            vectors[name] = vector.cpu().numpy()
        return Encoding(vectors, {name: float(np.linalg.norm(vector)) for name, vector in vectors.items()})

    def _explained(self, results: Sequence[Encoding | CatalogError]) -> list[Encoding | CatalogError]:
        """The same results with explanations; together, for each reading of the output head takes time."""
        found = [each for each in results if isinstance(each, Encoding)]
        if not found or self.layer != -1 or EXPLAINED not in found[0].vectors:
            return list(results)
        shifts = torch.from_numpy(np.stack([each.vectors[EXPLAINED] for each in found])).to(self.base.device)
        explained = iter(explain(shifts, self.base.head, self.base.tokenizer))
        return [replace(each, explanation=next(explained)) if isinstance(each, Encoding) else each for each in results]

    def _base_tables(self) -> dict[str, Tensor]:
        if self._tables is None:
            self.measure_base()
        assert self._tables is not None
        return self._tables

    def _measure_base(self, models: int) -> dict[str, Tensor]:
        trace = join(self._plan, [run(self.base.model, part, models)[-1] for part in self._parts])
        return self._read(replace(trace, head=self.base.head) if self._plan.head else trace)

    def _read(self, trace: Trace) -> dict[str, Tensor]:
        with torch.inference_mode():
            return {feature.name: feature.table(trace) for feature in self.features}

    def _plan_for(self, features: Sequence[Feature]) -> TokenPlan:
        """The tokens of one forward that serves all features."""
        plan = plan_tokens(
            self.base.tokenizer,
            self.probes,
            CONTINUATIONS.texts if any(feature.after_prompts for feature in features) else (),
            layer=self.layer,
            middle=round(MIDDLE * self.base.layers) if any(feature.in_the_middle for feature in features) else None,
            to_end=self.layer == -1 or not all(feature.at_layer for feature in features),
            head=any(feature.through_head for feature in features),
            whole=any(feature.whole_prompts for feature in features),
        )
        return plan.to(self.base.device)


def contract(feature: Feature, layer: int, probe_set: str, dtype: str) -> Space:
    """The space of a feature, with the base left open."""
    return Space(
        feature=feature.name,
        layer=layer if feature.at_layer else -1,
        base_repo=None,
        base_sha=None,
        probe_set=probe_set,
        dtype=dtype,
        encoder_version=feature.version(ENCODER_VERSION),
    )


def resolve_layer(layer: int | float, layers: int) -> int:
    """An index into `hidden_states` from 0, or -1 for the last, after the final norm.

    A float is a fraction of the way from the embeddings (0.0) to there (1.0). Raises `InvalidInput`.
    """
    if isinstance(layer, float):
        if not 0 <= layer <= 1:
            raise InvalidInput(f"{layer} is no fraction of the layers: it must lie between 0.0 and 1.0.")
        layer = round(layer * layers)
    if not -layers - 1 <= layer <= layers:
        raise InvalidInput(f"There is no layer {layer}: this base has {layers}, counted from 0, the embeddings.")
    index = layer % (layers + 1)
    return -1 if index == layers else index


def _shift_norm(feature: str, tuned: Tensor, base: Tensor) -> float:
    return float(find_feature(feature).vector(tuned, base).norm())
