"""(base, probes, fine-tunes) -> vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from catalog.errors import CatalogError, NonFiniteVector, UnsupportedAdapter
from catalog.probes import ProbeSet
from catalog.spaces import Space
from workers.encoding.base import ResidentBase
from workers.encoding.features import find_feature
from workers.encoding.lora import LoraPath, applied
from workers.encoding.prompts import plan_tokens
from workers.encoding.reading import FineTune
from workers.encoding.trace import Trace, run

ENCODER_VERSION = "1"
FLOOR_BATCHES = (1, 2, 3, 8)  # models in a forward
# The stored base table may come from another machine, whose kernels add in another order; measured shifts of real
# adapters lie five orders of magnitude above.
FLOOR_SAFETY = 8.0


@dataclass(frozen=True, eq=False)
class Encoding:
    """One fine-tune's vectors by feature, (d,) float32 each, and their Euclidean norms."""

    vectors: dict[str, np.ndarray]
    norms: dict[str, float]


class Encoder:
    """Measures fine-tunes of one base with one probe set; holds the base's own tables once they are known."""

    def __init__(
        self,
        base: ResidentBase,
        probes: ProbeSet,
        features: Sequence[str] = ("delta_activations",),
        *,
        layer: int | float = -1,
    ) -> None:
        """`layer` counts `hidden_states` (-1: after the final norm); a fraction counts from the embeddings to there.

        Raises `UnknownFeature`, `InvalidProbeSet`.
        """
        self.base = base
        self.probes = probes
        self.features = [find_feature(name) for name in features]
        self.layer = -1
        self._plan = plan_tokens(base.tokenizer, probes)
        self._paths = {"lora": LoraPath(base)}
        self._tables: dict[str, Tensor] | None = None

    def space(self, feature: str) -> Space:
        """The contract that this encoder's vectors of one feature stand under; raises `UnknownFeature`."""
        find_feature(feature)
        return Space(
            feature, self.layer, self.base.repo, self.base.sha, self.probes.sha256, self.base.dtype, ENCODER_VERSION
        )

    def measure_base(self) -> dict[str, np.ndarray]:
        """The base's own table of each feature, (N, d) float32; used from here on."""
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

        The largest norm that the base itself gets when it is encoded in other batch shapes, or one rounding step of
        the table where they agree to the bit, times `FLOOR_SAFETY`.
        """
        base = self._base_tables()
        floors = {name: _rounding_step(table) for name, table in base.items()}
        for models in FLOOR_BATCHES:
            for name, table in self._measure_base(models).items():
                shift = find_feature(name).vector(table, base[name])
                floors[name] = max(floors[name], float(shift.norm()))
        return {name: FLOOR_SAFETY * floor for name, floor in floors.items()}

    def encode(self, finetunes: Sequence[FineTune]) -> list[Encoding | CatalogError]:
        """One result for each fine-tune, in order. What is wrong with one becomes its result and spoils no other."""
        results: dict[int, Encoding | CatalogError] = {}
        for kind in dict.fromkeys(finetune.kind for finetune in finetunes):
            places = [place for place, finetune in enumerate(finetunes) if finetune.kind == kind]
            traces = self._traces(kind, [finetunes[place] for place in places])
            for place, trace in zip(places, traces, strict=True):
                results[place] = trace if isinstance(trace, CatalogError) else self._encoding(trace)
        return [results[place] for place in range(len(finetunes))]

    def _traces(self, kind: str, finetunes: Sequence[FineTune]) -> Sequence[Trace | CatalogError]:
        path = self._paths.get(kind)
        if path is None:
            return [UnsupportedAdapter(f"{finetune.name} is of the kind {kind}.") for finetune in finetunes]
        return path.traces(finetunes, self._plan)

    def _encoding(self, trace: Trace) -> Encoding | CatalogError:
        base, vectors = self._base_tables(), {}
        for feature in self.features:
            vector = feature.vector(feature.table(trace), base[feature.name])
            if not torch.isfinite(vector).all():
                return NonFiniteVector(f"{feature.name} came out with NaN or infinity.")
            vectors[feature.name] = vector.cpu().numpy()
        return Encoding(vectors, {name: float(np.linalg.norm(vector)) for name, vector in vectors.items()})

    def _base_tables(self) -> dict[str, Tensor]:
        if self._tables is None:
            self.measure_base()
        assert self._tables is not None
        return self._tables

    def _measure_base(self, models: int) -> dict[str, Tensor]:
        with applied(self.base.model, []):
            trace = run(self.base.model, self._plan, models)[-1]
        return {feature.name: feature.table(trace) for feature in self.features}


def _rounding_step(table: Tensor) -> float:
    return float(table.mean(dim=0).norm()) * torch.finfo(torch.float32).eps
