"""Runs merges: fetch the parts, merge them into one adapter, and measure it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from sqlalchemy.orm import Session
from transformers import PreTrainedModel

from catalog.archives import repository as archives
from catalog.arithmetic.additivity import residual
from catalog.auth.viewer import PUBLIC
from catalog.errors import CatalogError, MergeIncompatible, RevisionNotFound
from catalog.jobs.repository import attempts
from catalog.merges import repository as merges
from catalog.merges.methods import MergeSpec
from catalog.merges.parts import UNSUPPORTED_WEIGHTS, check_ranks
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.tables import Job, Merge, Model, Source
from catalog.vectors.numeric import cosine
from catalog.vectors.repository import vectors
from workers.bases.residents import Resident
from workers.encoding.encoder import Encoding
from workers.encoding.lora_path import names_in_causal_lm
from workers.finetunes.content import content_sha
from workers.finetunes.reading import FineTune, read_finetune
from workers.ingest.job_runner import JobRunner, Report
from workers.merges import adapter_writer
from workers.merges.combining import Modules, combine, max_result_bytes
from workers.process.cancellation import raise_if_cancelled
from workers.process.file_locks import FileLocks
from workers.process.retries import retry_while_database_down
from workers.process.scratch import scratch
from workers.process.stages import Stage
from workers.process.zip_archive import packed

FETCHED, MERGED = 0.3, 0.9  # of a job's progress


@dataclass(eq=False)
class MergeRunner(JobRunner):
    """Runs the jobs of merges, one at a time. The base is only used to measure the result."""

    title = "a merge"
    stage = Stage.MERGE

    pack: Callable[[Path], AbstractContextManager[BinaryIO]] = field(default=packed, kw_only=True)

    def run(self, job: Job) -> None:
        with self.database.transaction() as session:
            merge = merges.get_by_model(session, job.model_id)
            archives.check(session, self.archive_limits, job.viewer)
        weights = {part["repo_id"]: part["weight"] for part in merge.parts}
        spec = MergeSpec(weights, merge.method, **merge.settings)
        report = self._reporter_for(job)
        timestamps = [time.monotonic()]
        with FileLocks() as locks, scratch() as scratch_folder:
            parts = self._fetch_parts(merge, locks, report)
            check_mergeable(spec, parts)
            resident = self.bases.get(self.fetcher.resolve_base(merge.base_repo, merge.base_sha))
            base = resident.encoder.base
            timestamps.append(time.monotonic())
            factors = [modules_of(name, part, base.model) for name, part in zip(spec.weights, parts, strict=True)]
            with self.database.transaction() as session:
                archives.check(session, self.archive_limits, job.viewer, max_result_bytes(factors, spec))
            modules = combine(
                factors,
                spec,
                device=base.device,
                on_module=lambda done: report(FETCHED + done * (MERGED - FETCHED)),
            )
            timestamps.append(time.monotonic())
            folder = scratch_folder / "adapter"
            adapter_writer.write(folder, merge, modules, base.model, [part.config for part in parts])
            [encoding] = resident.encoder.encode([read_finetune(folder)])
            if isinstance(encoding, CatalogError):
                raise encoding
            timestamps.append(time.monotonic())
            durations = np.diff(timestamps).round(3).tolist()
            metrics = {
                "rank": next(iter(modules.values())).a.shape[0],
                "modules": len(modules),
                "bytes": sum(file.stat().st_size for file in folder.iterdir()),
                "seconds": dict(zip(("fetching", "merging", "measuring"), durations, strict=True)),
            }
            with self.pack(folder) as archive:
                retry_while_database_down(lambda: self._store(job, merge, resident, encoding, metrics, archive))

    def _fetch_parts(self, merge: Merge, locks: FileLocks, report: Report) -> list[FineTune]:
        with self.database.transaction() as session:
            part_models = models.get_by_ids(session, part_ids(merge), PUBLIC)
        parts = []
        for number, part in enumerate(merge.parts, 1):
            raise_if_cancelled()
            parts.append(self._fetch_part(part, part_models.get(part["model_id"]), locks))
            report(FETCHED * number / len(merge.parts))
        return parts

    def _fetch_part(self, part: dict[str, Any], model: Model | None, locks: FileLocks) -> FineTune:
        """Fetch a part at the revision that the merge was planned with. Raises `RevisionNotFound` if it has changed."""
        changed = RevisionNotFound(
            f"{part['repo_id']} is no longer at revision {part['sha'][:12]}, with which this merge was planned. Create "
            "the merge again."
        )
        if model is None or model.revision is None or model.revision.sha != part["sha"]:
            raise changed
        finetune = self.fetcher.fetch_current(model, locks, public=True)
        if model.source == Source.FOLDER and content_sha(finetune.folder) != part["sha"]:
            raise changed
        return finetune

    def _store(
        self, job: Job, merge: Merge, resident: Resident, encoding: Encoding, metrics: dict[str, Any], archive: BinaryIO
    ) -> None:
        with self.database.transaction() as session:
            if not attempts.finish(session, job.id, self.worker_id, None):
                return
            measured = {
                spaces.get_write_target(session, resident.encoder.space(feature), vector.size).id: vector
                for feature, vector in encoding.vectors.items()
            }
            metrics |= compare_with_plan(session, merge, measured)
            merges.store(session, merge.id, measured, metrics)
            archive.seek(0)  # an earlier attempt may have read it
            archives.store(session, job.model_id, archive, viewer=job.viewer, limits=self.archive_limits)


def compare_with_plan(session: Session, merge: Merge, measured: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """Compare the measured vectors (d,), by space id, with the predictions; and in the space of the plan, with the
    vectors of the parts. The cosine to a part is None if its model has been deleted.
    """
    predictions = merges.get_vectors(session, merge.id, predicted=True)
    space_key = merge.plan["space"]
    metrics: dict[str, Any] = {
        "spaces": {
            space.feature: compare(measured[space.id], prediction)
            for space, prediction in predictions
            if space.id in measured
        },
        "cosines_to_parts": None,
    }
    vector = next((measured.get(space.id) for space, _ in predictions if space.key == space_key), None)
    if vector is not None:
        part_vectors = {
            model_id: encoding.vector
            for model_id, model in models.get_by_ids(session, part_ids(merge), PUBLIC).items()
            for encoding in vectors.list_encodings(session, model)
            if encoding.space.key == space_key
        }
        metrics["cosines_to_parts"] = [
            round(cosine(vector, part_vectors[model_id]), 6) if model_id in part_vectors else None
            for model_id in part_ids(merge)
        ]
    return metrics


def part_ids(merge: Merge) -> list[int]:
    """The ids of the parts' models, which are public: a private model may have the same repo id."""
    return [part["model_id"] for part in merge.parts]


def check_mergeable(spec: MergeSpec, parts: Sequence[FineTune]) -> None:
    """Repeat the checks of the plan on the fetched parts: revisions that were indexed before ranks were stored passed
    them unchecked. Raises `MergeIncompatible`.
    """
    for name, part in zip(spec.weights, parts, strict=True):
        if part.path != "lora" or not part.modules:
            raise MergeIncompatible(UNSUPPORTED_WEIGHTS.format(name=name))
    check_ranks(spec, {name: part.facts["ranks"] for name, part in zip(spec.weights, parts, strict=True)})


def modules_of(name: str, part: FineTune, base: PreTrainedModel) -> Modules:
    """The modules of a part, by their names in the causal LM, without those that AdaLoRA pruned to rank 0.

    Raises `MergeIncompatible` if no module is left, and `ShapeMismatch`.
    """
    modules = {module_name: module for module_name, module in part.modules.items() if module.a.shape[0]}
    if not modules:
        raise MergeIncompatible(f"{name} changes nothing: all of its modules have rank 0.")
    return names_in_causal_lm(modules, base)


def compare(vector: np.ndarray, prediction: np.ndarray) -> dict[str, float | None]:
    """Compare a measured vector (d,) with its prediction (d,)."""
    norm, predicted_norm = float(np.linalg.norm(vector)), float(np.linalg.norm(prediction))
    similarity: dict[str, float | None] = {"cosine": None, "residual": None}
    if norm > 0 and predicted_norm > 0:
        difference = residual(vector.astype(np.float64), prediction.astype(np.float64))
        similarity = {"cosine": difference.cosine, "residual": difference.relative}
    return {"norm": norm, "predicted_norm": predicted_norm, **similarity}
