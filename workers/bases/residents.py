"""Base models that stay in memory, each with its encoder and the activations of the base itself."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.jobs.repository import workers
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space
from catalog.spaces.probes import ProbeSet
from catalog.spaces.repository import BaseMeasurement
from catalog.tables import BaseProof
from workers.bases.blame import reading_base
from workers.bases.memory_limit import NO_LIMIT, MemoryLimit
from workers.bases.resolver import ResolvedBase
from workers.encoding.encoder import Encoder, feature_space
from workers.encoding.features import find_feature
from workers.encoding.resident_base import ResidentBase
from workers.process.stages import Stage, Stages
from workers.readers.in_process import IN_PROCESS
from workers.readers.interface import Readers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasurementSettings:
    """What a worker measures of each model, and how: the settings of its spaces that do not depend on the base."""

    probes: ProbeSet
    features: Sequence[str] = ("delta_activations",)
    layer: int = -1
    dtype: str = "float32"
    device: str = "cpu"

    def spaces(self) -> list[Space]:
        """The space of each feature, without a base. Raises `UnknownFeature`."""
        return [feature_space(find_feature(name), self.layer, self.probes.sha256, self.dtype) for name in self.features]


@dataclass(frozen=True)
class Resident:
    """An encoder over a base in memory, and the noise floor of each of its spaces (a norm, by feature)."""

    encoder: Encoder
    noise_floor: dict[str, float]
    nbytes: int

    @property
    def proof(self) -> BaseProof:
        """How the base runs, to be stored. JSON has no infinity, so infinite errors are None."""
        base, proof = self.encoder.base, self.encoder.proof
        error, *kind_errors = (
            value if value is not None and math.isfinite(value) else None
            for value in (proof.error, *self.encoder.kind_errors.values())
        )
        kinds = dict(zip(self.encoder.kind_errors, kind_errors, strict=True))
        return BaseProof(
            base_repo=base.repo,
            base_sha=base.sha,
            dtype=base.dtype,
            path=proof.path,
            error=error,
            reason=proof.reason,
            kinds=kinds,
        )


class ResidentBases:
    """The most recently used bases of a worker, as many as fit into the memory `limit`."""

    def __init__(
        self,
        database: Database,
        measurement: MeasurementSettings,
        worker_id: int,
        limit: MemoryLimit = NO_LIMIT,
        stages: Stages | None = None,
        readers: Readers = IN_PROCESS,
    ) -> None:
        self.measurement = measurement
        self._readers = readers
        self._database = database
        self._worker_id = worker_id
        self._limit = limit
        self._stages = stages or Stages()
        self._resident: OrderedDict[tuple[str, str], Resident] = OrderedDict()

    @property
    def repos(self) -> list[str]:
        """Repo ids of the bases in memory, the most recently used first."""
        return [repo for repo, _ in list(self._resident)[::-1]]  # a copy: another thread may be loading a base

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes in memory of each base, by its repo id."""
        return {repo: resident.nbytes for (repo, _), resident in list(self._resident.items())}

    def __contains__(self, base: ResolvedBase) -> bool:
        return (base.repo, base.sha) in self._resident

    def get(self, base: ResolvedBase) -> Resident:
        """The resident base, which is loaded if it is not in memory. Raises `ModelTooLarge`, `DeadlineExceeded`, and
        what `ResidentBase.load` and `Encoder` raise.
        """
        key = (base.repo, base.sha)
        if key in self._resident and self._resident[key].encoder.corrupted:
            log.warning("the base %s was modified by an adapter: loading it again", base.repo)
            del self._resident[key]
        if key not in self._resident:
            with reading_base(base.repo, base.sha):
                shapes = self._readers.weight_shapes(base.repo, base.folder)
            self._limit.check(shapes, base.repo)
            self._evict_for(self._limit.required(shapes))
            log.info("loading %s@%s", base.repo, base.sha[:12])
            with self._noted_loading(base), self._stages.run(Stage.LOAD):
                self._resident[key] = self._load(base)
        self._resident.move_to_end(key)
        return self._resident[key]

    @contextmanager
    def _noted_loading(self, base: ResolvedBase) -> Iterator[None]:
        """Note on the worker's row what it loads: if it dies within the context, the base is to blame and not a job."""
        with self._database.transaction() as session:
            workers.start_loading(session, self._worker_id, base.repo, base.sha)
        try:
            with reading_base(base.repo, base.sha):
                yield
        finally:
            with suppress(DatabaseUnavailable), self._database.transaction() as session:
                workers.stop_loading(session, [self._worker_id])

    def _load(self, base: ResolvedBase) -> Resident:
        measurement = self.measurement
        files = self._readers.read_base(base.repo, base.folder)
        loaded = ResidentBase.load(
            base.folder, base.repo, base.sha, dtype=measurement.dtype, device=measurement.device, files=files
        )
        encoder = Encoder(loaded, measurement.probes, measurement.features, layer=measurement.layer, prove_kinds=True)
        measurements = self._stored_measurements(encoder, base) or self._new_measurements(encoder, base)
        encoder.use_base({feature: measurement.activations for feature, measurement in measurements.items()})
        floors = {feature: measurement.noise_floor for feature, measurement in measurements.items()}
        resident = Resident(encoder, floors, loaded.nbytes)
        with self._database.transaction() as session:
            spaces.store_proof(session, resident.proof)
            quarantine.forget(session, QuarantineKey.of_base(base.repo, base.sha))
        return resident

    def _stored_measurements(self, encoder: Encoder, base: ResolvedBase) -> dict[str, BaseMeasurement] | None:
        with self._database.transaction() as session:
            stored = {
                feature: spaces.find_base_measurement(session, encoder.space(feature), base.repo, base.sha)
                for feature in self.measurement.features
            }
        measurements = {feature: measurement for feature, measurement in stored.items() if measurement is not None}
        return measurements if len(measurements) == len(stored) else None

    def _new_measurements(self, encoder: Encoder, base: ResolvedBase) -> dict[str, BaseMeasurement]:
        activations = encoder.measure_base()
        encoder.use_base(activations)
        floors = encoder.noise_floor()
        measurements = {
            feature: BaseMeasurement(activations[feature], floors[feature]) for feature in self.measurement.features
        }
        with self._database.transaction() as session:
            for feature, measurement in measurements.items():
                space = encoder.space(feature)
                spaces.store_base_measurement(
                    session, space, base.repo, base.sha, measurement, may_serve=base.may_serve(space)
                )
        return measurements

    def _evict_for(self, nbytes: int) -> None:
        budget = self._limit.budget - nbytes
        while self._resident and sum(resident.nbytes for resident in self._resident.values()) > budget:
            (repo, _), _ = self._resident.popitem(last=False)
            log.info("evicting %s", repo)
