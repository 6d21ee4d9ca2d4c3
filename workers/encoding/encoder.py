"""The encoder: (base, probes, fine-tunes) -> vectors."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from catalog.errors import CatalogError, InvalidInput, NonFiniteVector, UnsupportedBase
from catalog.spaces.contract import Space
from catalog.spaces.probes import ProbeSet
from workers.encoding import kernels
from workers.encoding.continuations import CONTINUATIONS
from workers.encoding.explanation import Explanation, explain
from workers.encoding.features import Feature, find_feature
from workers.encoding.features.base import MIDDLE_DEPTH
from workers.encoding.forward import MAX_RELATIVE_ERROR, relative_error
from workers.encoding.full_path import FullPath
from workers.encoding.guard import BaseGuard
from workers.encoding.lora_path import LoraPath
from workers.encoding.model_loading import DTYPES
from workers.encoding.module_names import ModuleNames
from workers.encoding.peft_path import PeftPath
from workers.encoding.prompt_path import PromptPath
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan, plan_proof, plan_tokens
from workers.encoding.trace import Trace, join
from workers.finetunes.finetune import FineTune

ENCODER_VERSION = "1"
EXPLAINED_FEATURE = "delta_activations"  # its vectors can be read through the output head
PART_TOKENS = 4096  # of one model in a forward pass; larger probe sets are run in parts
FLOOR_NEIGHBORS = (0, 1, 2)  # perturbed models before the measured one in a packed forward pass
REDUCED_STEPS = 2  # rounding steps of a reduced dtype that PEFT's layers may differ by
FLOOR_SAFETY = 4.0  # a vector of this many times its noise has a cosine of 0.97 to its noiseless self

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Encoding:
    """One fine-tune's vectors by feature, (d,) float32 each, and their Euclidean norms.

    `explanation` is set for `delta_activations` after the final norm, the only layer that the output head reads.
    `notes` are sentences for users about what was measured, such as a part that was left out.
    """

    vectors: dict[str, np.ndarray]
    norms: dict[str, float]
    explanation: Explanation | None = None
    notes: tuple[str, ...] = ()


class EncodingPath(Protocol):
    """An encoding path: returns one trace or error for each fine-tune, in order."""

    def traces(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> Sequence[Trace | CatalogError]: ...


class Encoder:
    """Measures fine-tunes of one base with one probe set. The base's own tables are measured once and kept."""

    def __init__(
        self,
        base: ResidentBase,
        probes: ProbeSet,
        features: Sequence[str] = ("delta_activations",),
        *,
        layer: int | float = -1,
        full_memory: int | None = None,
        prove_kinds: bool = False,
    ) -> None:
        """`layer` is an index into `hidden_states` (-1: after the final norm) or a fraction of the depth.

        `full_memory` limits the bytes of a full fine-tune in memory (None: the free memory); a larger one is streamed.
        With `prove_kinds`, the first fine-tune of each kind is compared with the plain path and PEFT's own layers.

        Raises `UnknownFeature`, `InvalidProbeSet`, `InvalidInput`, and `UnsupportedBase` if the base cannot be
        measured, or if a feature needs an output head and the base has none.
        """
        self.base = base
        self.probes = probes
        self.features = [find_feature(name) for name in features]
        self.layer = resolve_layer(layer, base.layers)
        self._plan = self._plan_for(self.features)
        base.check_tokens(self._plan)
        self._proof_plan = plan_proof(self._plan)
        self.proof = base.prove(self._proof_plan)
        if self._plan.head:
            base.require_head()
        self._kind_errors: dict[str, float] = {}
        self._prove_kinds = prove_kinds
        self._parts = list(self._plan.parts(PART_TOKENS))
        self._guard = BaseGuard(base.model, lambda: base.forward.path)
        self._full = FullPath(base, full_memory)
        self._paths: dict[str, EncodingPath] = {
            "lora": LoraPath(base),
            "peft": PeftPath(base, self._guard),
            "prompt": PromptPath(base),
            "full": self._full,
        }
        self._tables: dict[str, Tensor] | None = None

    @property
    def kind_errors(self) -> dict[str, float]:
        """The kinds of which a fine-tune was compared with the plain path, with the largest relative error of a state;
        infinite if it did not run packed.
        """
        proof = self._full.proof
        full = {} if proof is None else {"full": math.inf if proof.error is None else proof.error}
        return self._kind_errors | full

    @property
    def corrupted(self) -> bool:
        """Whether an adapter modified the base, which must then be loaded again."""
        return self._guard.corrupted

    def space(self, feature: str) -> Space:
        """The space of this encoder's vectors of one feature. Raises `UnknownFeature`."""
        definition, base = find_feature(feature), self.base
        space = feature_space(definition, self.layer, self.probes.sha256, base.dtype)
        return space if definition.across_bases else replace(space, base_repo=base.repo, base_sha=base.sha)

    def measure_base(self) -> dict[str, np.ndarray]:
        """Measure the base's own table of each feature, (N, d) float32, and use it for later vectors."""
        with kernels.exact(self.base.model):
            tables = self._measure_base(neighbors=0)
        self._tables = tables
        return {name: table.cpu().numpy() for name, table in tables.items()}

    def use_base(self, tables: Mapping[str, np.ndarray]) -> None:
        """Use tables that `measure_base` returned for the same spaces."""
        self._tables = {
            name: torch.tensor(table, dtype=torch.float32, device=self.base.device) for name, table in tables.items()
        }

    def noise_floor(self) -> dict[str, float]:
        """For each feature, the norm up to which a shift may be rounding error.

        It is `FLOOR_SAFETY` times the largest norm of the base itself when it is encoded like a fine-tune, alone and
        behind perturbed neighbors, and at least one rounding step per layer, by which the kernels of another machine
        may differ. On the plain path, steps are those of the base's dtype.
        """
        base = self._base_tables()
        dtype = DTYPES[self.base.dtype] if self.base.forward.is_plain else torch.float32
        step = torch.finfo(dtype).eps * self.base.layers
        floors = {name: step * _shift_norm(name, 2 * table, table) for name, table in base.items()}
        for neighbors in () if self.base.forward.is_plain else FLOOR_NEIGHBORS:
            for name, table in self._measure_base(neighbors).items():
                floors[name] = max(floors[name], FLOOR_SAFETY * _shift_norm(name, table, base[name]))
        return floors

    def encode(self, finetunes: Sequence[FineTune]) -> list[Encoding | CatalogError]:
        """One result for each fine-tune, in order. An error of one is its result and does not affect the others."""
        names, results = ModuleNames(self.base.model), list[Encoding | CatalogError]()
        for finetune, trace in zip(finetunes, self._traces(finetunes, self._plan, self._parts), strict=True):
            if isinstance(trace, CatalogError):
                results.append(trace)
            else:
                results.append(self._encoding(replace(trace, notes=(*trace.notes, *names.notes(finetune)))))
        return self._explained(results)

    def trace(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> list[Trace | CatalogError]:
        """The trace or error of each fine-tune for the caller's plan, in order."""
        return self._traces(finetunes, plan, list(plan.parts(PART_TOKENS)))

    def trace_base(self, plan: TokenPlan) -> Trace:
        """The trace of the base for the caller's plan."""
        trace = join(plan, [self.base.forward.run(part)[0] for part in plan.parts(PART_TOKENS)])
        return replace(trace, head=self.base.head) if plan.head else trace

    def _traces(
        self, finetunes: Sequence[FineTune], plan: TokenPlan, parts: Sequence[TokenPlan]
    ) -> list[Trace | CatalogError]:
        for finetune in finetunes:
            if self._prove_kinds and finetune.path != "full" and _kind(finetune) not in self._kind_errors:
                self._prove_kind(finetune)
        results: dict[int, Trace | CatalogError] = {}
        for path, plain in dict.fromkeys(self._route(finetune) for finetune in finetunes):
            indices = [index for index, finetune in enumerate(finetunes) if self._route(finetune) == (path, plain)]
            path_finetunes = [finetunes[index] for index in indices]
            with self.base.forward.plain() if plain else nullcontext():
                part_traces = zip(*(self._paths[path].traces(path_finetunes, part) for part in parts), strict=True)
                results.update(zip(indices, (self._joined(plan, traces) for traces in part_traces), strict=True))
        return [results[index] for index in range(len(finetunes))]

    def _route(self, finetune: FineTune) -> tuple[str, bool]:
        """The path of a fine-tune, and whether its kind was disproved, so that it runs on the plain path."""
        disproved = self._kind_errors.get(_kind(finetune), 0.0) > self._max_kind_error
        return (self._reference_path(finetune) if disproved else finetune.path), disproved

    def _reference_path(self, finetune: FineTune) -> str:
        """The path on which PEFT's own layers compute a fine-tune: plain LoRA otherwise runs in hooks. In a reduced
        dtype they round more than hooks.
        """
        is_lora = finetune.path == "lora" and finetune.tensors and self.base.dtype == "float32"
        return "peft" if is_lora else finetune.path

    @property
    def _max_kind_error(self) -> float:
        if self.base.dtype == "float32":
            return MAX_RELATIVE_ERROR
        return REDUCED_STEPS * torch.finfo(DTYPES[self.base.dtype]).eps

    def _prove_kind(self, finetune: FineTune) -> None:
        """Compare a fine-tune with itself on the plain path and in PEFT's own layers. A fine-tune that either of them
        refuses proves nothing.
        """
        reference_path = self._reference_path(finetune)
        if self.base.forward.is_plain and reference_path == finetune.path:
            return
        with kernels.exact(self.base.model):
            [trace] = self._paths[finetune.path].traces([finetune], self._proof_plan)
        with self.base.forward.plain():
            [expected] = self._paths[reference_path].traces([finetune], self._proof_plan)
        if isinstance(trace, CatalogError) or isinstance(expected, CatalogError):
            log.info("%s does not prove its kind, %s: %s", finetune.name, finetune.kind, (trace, expected))
            return
        error = relative_error(trace, expected)
        self._kind_errors[_kind(finetune)] = error
        if error > self._max_kind_error:
            log.warning("%s fine-tunes of %s run on the plain path: error %.1e", finetune.kind, self.base.repo, error)

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
                return NonFiniteVector(f"The vector of {name} has NaN or infinity.")
            vectors[name] = vector.cpu().numpy()
        norms = {name: float(np.linalg.norm(vector)) for name, vector in vectors.items()}
        return Encoding(vectors, norms, notes=(*self.base.notes, *trace.notes))

    def _explained(self, results: Sequence[Encoding | CatalogError]) -> list[Encoding | CatalogError]:
        """The same results with explanations, computed together because each pass over the output head takes time."""
        encodings = [result for result in results if isinstance(result, Encoding)]
        if not encodings or self.layer != -1 or EXPLAINED_FEATURE not in encodings[0].vectors:
            return list(results)
        try:
            head = self.base.head
        except UnsupportedBase:  # an embedding model, whose hidden states need no head
            return list(results)
        vectors = np.stack([encoding.vectors[EXPLAINED_FEATURE] for encoding in encodings])
        explanations = iter(explain(torch.from_numpy(vectors).to(self.base.device), head, self.base.tokenizer))
        return [
            replace(result, explanation=next(explanations)) if isinstance(result, Encoding) else result
            for result in results
        ]

    def _base_tables(self) -> dict[str, Tensor]:
        if self._tables is None:
            self.measure_base()
        assert self._tables is not None
        return self._tables

    def _measure_base(self, neighbors: int) -> dict[str, Tensor]:
        forward = self.base.forward
        parts = (
            forward.run_behind_neighbors(part, neighbors) if neighbors else forward.run(part)[0] for part in self._parts
        )
        trace = join(self._plan, list(parts))
        return self._read(replace(trace, head=self.base.head) if self._plan.head else trace)

    def _read(self, trace: Trace) -> dict[str, Tensor]:
        with torch.inference_mode():
            return {feature.name: feature.table(trace) for feature in self.features}

    def _plan_for(self, features: Sequence[Feature]) -> TokenPlan:
        """The tokens of one forward pass for all features."""
        plan = plan_tokens(
            self.base.tokenizer,
            self.probes,
            CONTINUATIONS.texts if any(feature.after_prompts for feature in features) else (),
            layer=self.layer,
            middle=round(MIDDLE_DEPTH * self.base.layers)
            if any(feature.in_the_middle for feature in features)
            else None,
            to_end=self.layer == -1 or not all(feature.at_layer for feature in features),
            head=any(feature.through_head for feature in features),
            whole=any(feature.whole_prompts for feature in features),
        )
        return plan.to(self.base.device)


def _kind(finetune: FineTune) -> str:
    """The kind of a fine-tune that is proven; LoRA beyond low-rank pairs of linear layers is one of its own."""
    return "lora (peft)" if (finetune.kind, finetune.path) == ("lora", "peft") else finetune.kind


def feature_space(feature: Feature, layer: int, probe_set: str, dtype: str) -> Space:
    """The space of a feature, without a base."""
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
    """Resolve a layer to an index into `hidden_states` from 0, or -1 for the last one, after the final norm.

    A float is a fraction of the way from the embeddings (0.0) to there (1.0). Raises `InvalidInput`.
    """
    if isinstance(layer, float):
        if not 0 <= layer <= 1:
            raise InvalidInput(f"{layer} is not a fraction of the layers: it must be between 0.0 and 1.0.")
        layer = round(layer * layers)
    if not -layers - 1 <= layer <= layers:
        raise InvalidInput(f"There is no layer {layer}: this base has {layers}, counted from 0, the embeddings.")
    index = layer % (layers + 1)
    return -1 if index == layers else index


def _shift_norm(feature: str, tuned: Tensor, base: Tensor) -> float:
    return float(find_feature(feature).vector(tuned, base).norm())
