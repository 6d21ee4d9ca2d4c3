"""A merge's job: fetch the parts, make them one, measure what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from sqlalchemy.orm import Session
from torch import nn

from catalog.archives import repository as archives
from catalog.arithmetic.additivity import residual
from catalog.auth.viewer import PUBLIC
from catalog.database import Database
from catalog.errors import CatalogError, MergeIncompatible, RevisionNotFound
from catalog.jobs.repository import attempts
from catalog.merges import repository as merges
from catalog.merges.methods import Blend
from catalog.merges.parts import MORE_THAN_PAIRS, check_ranks
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.tables import Job, Merge, Model, Source
from catalog.vectors.numeric import cosine
from catalog.vectors.repository import vectors
from workers.bases.residents import Resident, ResidentBases
from workers.encoding.encoder import Encoding
from workers.encoding.lora_path import names_in_causal_lm
from workers.finetunes.content import content_sha
from workers.finetunes.reading import FineTune, read_finetune
from workers.ingest.exclusive import JobRunner, Reporter, report_progress
from workers.ingest.fetcher import Fetcher
from workers.merges import adapter_writer
from workers.merges.combining import Modules, combine
from workers.process.cancellation import check
from workers.process.file_locks import Hold
from workers.process.retries import patiently
from workers.process.scratch import scratch
from workers.process.zip_archive import packed

FETCHED, MERGED = 0.3, 0.9  # of a job's progress


class MergeRunner(JobRunner):
    """Runs the jobs of merges, one at a time; no base is touched but to measure the result on it."""

    title = "a merge"

    def __init__(
        self,
        database: Database,
        bases: ResidentBases,
        fetcher: Fetcher,
        worker_id: int,
        *,
        reporter: Reporter = report_progress,
        pack: Callable[[Path], AbstractContextManager[BinaryIO]] = packed,
    ) -> None:
        super().__init__(database, bases, fetcher, worker_id, reporter=reporter)
        self._pack = pack

    def run(self, job: Job) -> None:
        with self._database.transaction() as session:
            merge = merges.of_model(session, job.model_id)
        blend = blend_of(merge)
        tell = self._reports_on(job)
        times = [time.monotonic()]
        with Hold() as hold, scratch() as top:
            parts = self._fetch(merge, hold, tell)
            check_mergeable(blend, parts)
            resident = self._bases.get(self._fetcher.base(merge.base_repo, merge.base_sha))
            base = resident.encoder.base
            times.append(time.monotonic())
            modules = combine(
                [modules_of(name, part, base.model) for name, part in zip(blend.weights, parts, strict=True)],
                blend,
                device=base.device,
                on_module=lambda done: tell(FETCHED + done * (MERGED - FETCHED)),
            )
            times.append(time.monotonic())
            made = top / "adapter"
            adapter_writer.write(made, merge, modules, base.model, [part.config for part in parts])
            [encoding] = resident.encoder.encode([read_finetune(made)])
            if isinstance(encoding, CatalogError):
                raise encoding
            times.append(time.monotonic())
            spent = np.diff(times).round(3).tolist()
            figures = {
                "rank": next(iter(modules.values())).a.shape[0],
                "modules": len(modules),
                "bytes": sum(file.stat().st_size for file in made.iterdir()),
                "seconds": dict(zip(("fetching", "merging", "measuring"), spent, strict=True)),
            }
            with self._pack(made) as file:
                patiently(lambda: self._store(job, merge, resident, encoding, figures, file))

    def _fetch(self, merge: Merge, hold: Hold, tell: Callable[[float], None]) -> list[FineTune]:
        with self._database.transaction() as session:
            found = models.by_ids(session, part_ids(merge), PUBLIC)
        parts = []
        for number, part in enumerate(merge.parts, 1):
            check()
            parts.append(self._part(part, found.get(part["model_id"]), hold))
            tell(FETCHED * number / len(merge.parts))
        return parts

    def _part(self, part: dict[str, Any], model: Model | None, hold: Hold) -> FineTune:
        """The very revision that the merge was asked of."""
        moved = RevisionNotFound(
            f"{part['repo_id']} is at another revision by now than {part['sha'][:12]}, of which this merge was asked: "
            "ask for it again."
        )
        if model is None or model.revision is None or model.revision.sha != part["sha"]:
            raise moved
        finetune = self._fetcher.again(model, hold, public=True)
        if model.source == Source.FOLDER and content_sha(finetune.folder) != part["sha"]:
            raise moved
        return finetune

    def _store(
        self, job: Job, merge: Merge, resident: Resident, encoding: Encoding, figures: dict[str, Any], file: BinaryIO
    ) -> None:
        with self._database.transaction() as session:
            if not attempts.finish(session, job.id, self._worker_id, None):
                return
            homes = {
                spaces.home(session, resident.encoder.space(feature), vector.size).id: vector
                for feature, vector in encoding.vectors.items()
            }
            figures |= measured(session, merge, homes)
            merges.store(session, merge.id, homes, figures)
            file.seek(0)  # an earlier try may have read it
            archives.store(session, job.model_id, file)


def measured(session: Session, merge: Merge, made: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """What came out (d,), by the id of its space, beside what was predicted there; and in the space of the plan its
    cosine to each part (None: one that is not there any more).
    """
    foreseen = merges.vectors(session, merge.id, predicted=True)
    told: dict[str, Any] = {
        "spaces": {space.feature: compared(made[space.id], each) for space, each in foreseen if space.id in made},
        "closeness": None,
    }
    vector = next((made.get(space.id) for space, _ in foreseen if space.key == merge.plan["space"]), None)
    if vector is not None:
        there = models.by_ids(session, part_ids(merge), PUBLIC)
        known = {
            model_id: stored.vector
            for model_id, model in there.items()
            for stored in vectors.in_spaces(session, model)
            if stored.space.key == merge.plan["space"]
        }
        told["closeness"] = [
            round(cosine(vector, known[each]), 6) if each in known else None for each in part_ids(merge)
        ]
    return told


def part_ids(merge: Merge) -> list[int]:
    """Of the parts' models, which are public ones, whatever private ones have the same names."""
    return [part["model_id"] for part in merge.parts]


def blend_of(merge: Merge) -> Blend:
    return Blend.of({part["repo_id"]: part["weight"] for part in merge.parts}, merge.method, merge.settings)


def check_mergeable(blend: Blend, parts: Sequence[FineTune]) -> None:
    """What the plan could not know of parts that were indexed before it was stored. Raises `MergeIncompatible`."""
    for name, part in zip(blend.weights, parts, strict=True):
        if part.path != "lora" or not part.modules:
            raise MergeIncompatible(MORE_THAN_PAIRS.format(name=name))
    check_ranks(blend, {name: part.facts["ranks"] for name, part in zip(blend.weights, parts, strict=True)})


def modules_of(name: str, part: FineTune, base: nn.Module) -> Modules:
    """What a part changes, by the names in a causal LM; without modules of which AdaLoRA has left no rank. Raises
    `MergeIncompatible` where there is nothing else, `ShapeMismatch`.
    """
    found = {place: module for place, module in part.modules.items() if module.a.shape[0]}
    if not found:
        raise MergeIncompatible(f"{name} changes nothing: all of its modules are of rank 0.")
    return names_in_causal_lm(found, base)


def compared(vector: np.ndarray, predicted: np.ndarray) -> dict[str, float | None]:
    """What came out (d,) beside what was predicted."""
    norm, foreseen = float(np.linalg.norm(vector)), float(np.linalg.norm(predicted))
    told: dict[str, float | None] = {"norm": norm, "predicted_norm": foreseen, "cosine": None, "residual": None}
    if norm > 0 and foreseen > 0:
        found = residual(vector.astype(np.float64), predicted.astype(np.float64))
        told |= {"cosine": found.cosine, "residual": found.relative}
    return told
