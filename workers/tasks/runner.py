"""Runs a task on one base: train adapters on the examples, measure them, and score the nearest models."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sqlalchemy.orm import Session

from catalog.archives import repository as archives
from catalog.errors import CatalogError, DatabaseUnavailable, ExamplesDeleted, NonFiniteWeights, Refused, Unavailable
from catalog.jobs.repository import attempts
from catalog.spaces import repository as spaces
from catalog.tables import Job, Model, SpaceRow, Task, TaskRun
from catalog.tasks import repository as tasks
from catalog.tasks.examples import Example, split_holdout
from catalog.tasks.nearest import nearest_models
from catalog.tasks.service import HOLDOUT_SHARE
from catalog.tasks.training_config import TrainingConfig
from catalog.tasks.uncertainty import balanced_half_samples
from workers.encoding.encoder import Encoder
from workers.finetunes.reading import read_finetune
from workers.ingest.job_runner import JobRunner, Report
from workers.process.cancellation import raise_if_cancelled
from workers.process.file_locks import FileLocks
from workers.process.retries import retry_while_database_down
from workers.process.scratch import scratch
from workers.process.stages import Stage
from workers.process.zip_archive import packed
from workers.tasks.card import write_card
from workers.tasks.scoring import Losses, Scorer
from workers.tasks.trainer import Trainer

TRAINING_SHARE = 0.8  # of the progress of a job that also scores models


@dataclass(frozen=True)
class Measurements:
    """The vectors (1 + h, d) of a task's adapters by feature, first that of all examples, then those of halves; and for
    each adapter the loss per token at the first and at the last step.
    """

    vectors: dict[str, np.ndarray]
    losses: list[tuple[float, float]]


class TaskRunner(JobRunner):
    """Runs the jobs of tasks, one at a time, on the bases in memory."""

    title = "a task"
    stage = Stage.TRAIN

    def run(self, job: Job) -> None:
        start = time.monotonic()
        with self.database.transaction() as session:
            task, run = tasks.get_by_model(session, job.model_id)
            if task.keep_adapter:
                archives.check(session, self.archive_limits, job.viewer)
        if task.examples is None:
            raise ExamplesDeleted(
                f"The examples of task {task.id} have been deleted. Create the task again with POST /v1/tasks."
            )
        examples = [Example(**row) for row in task.examples]
        training, holdout = split_holdout(examples, HOLDOUT_SHARE) if task.verify else (examples, [])
        resident = self.bases.get(self.fetcher.resolve_base(run.base_repo, run.base_sha))
        encoder, config = resident.encoder, TrainingConfig(**task.training_config)
        report, share = self._reporter_for(job), TRAINING_SHARE if holdout else 1.0
        with scratch() as folder:
            measurements = train_and_measure(
                encoder, training, config, task.seed, folder, lambda done: report(done * share)
            )
            trained = time.monotonic()
            scorer = Scorer(encoder, holdout, config.max_tokens) if holdout else None
            scores = self._verify(task, encoder, measurements, scorer) if scorer else {}
            metrics = {
                "seconds": round(time.monotonic() - start, 2),
                "seconds_training": round(trained - start, 2),
                "losses": [[round(loss, 4) for loss in losses] for losses in measurements.losses],
                "holdout_examples": len(holdout),
            } | scores
            adapter = folder / "0" if task.keep_adapter else None
            if adapter is not None:
                write_card(adapter, task, run.base_repo, len(training))
            retry_while_database_down(lambda: self._store(job, run, encoder, measurements, metrics, adapter))

    def _verify(self, task: Task, encoder: Encoder, measurements: Measurements, scorer: Scorer) -> dict[str, Any]:
        """The losses of the nearest models, and of the base, on the holdout."""
        with self.database.transaction() as session:
            targets = _write_targets(session, encoder, measurements)
            nearest = nearest_models(session, targets, measurements.vectors, task.verify)
        scores: list[dict[str, Any]] = []
        for model, similarity in nearest:
            raise_if_cancelled()
            result = self._score(scorer, model)
            scores.append({"repo_id": model.repo_id, "similarity": round(similarity, 4), **_score_fields(result)})
        base_loss = round(scorer.base().per_token, 4)
        return {"base_loss": base_loss, "rank_correlation": rank_correlation(scores), "scores": scores}

    def _score(self, scorer: Scorer, model: Model) -> Losses | CatalogError:
        locks = FileLocks()
        try:
            [result] = scorer.finetunes([self.fetcher.fetch_current(model, locks)])
            return result
        except DatabaseUnavailable:
            raise
        except (Refused, Unavailable) as error:  # the task and the other scores do not depend on this model
            return error
        finally:
            locks.release()

    def _store(
        self,
        job: Job,
        run: TaskRun,
        encoder: Encoder,
        measurements: Measurements,
        metrics: dict[str, Any],
        adapter: Path | None,
    ) -> None:
        with self.database.transaction() as session:
            if not attempts.finish(session, job.id, self.worker_id, None):
                return
            targets = _write_targets(session, encoder, measurements)
            vectors = {targets[feature].id: rows for feature, rows in measurements.vectors.items()}
            tasks.store(session, run.id, vectors, metrics)
            if adapter is not None:
                with packed(adapter) as file:
                    archives.store(session, job.model_id, file, viewer=job.viewer, limits=self.archive_limits)
            tasks.delete_examples(session)


def train_and_measure(
    encoder: Encoder,
    examples: Sequence[Example],
    config: TrainingConfig,
    seed: int,
    folder: Path,
    report: Report,
) -> Measurements:
    """Train a task's adapters and measure them. An adapter of half of the examples takes half the steps. The adapters
    stay in folders below `folder`; that of all examples is `0`. `report` is called with the share that is done.
    """
    trainer = Trainer(encoder.base, config)
    vectors: dict[str, list[np.ndarray]] = defaultdict(list)
    losses: list[tuple[float, float]] = []
    samples = balanced_half_samples(len(examples), seed)
    full_steps = config.steps(len(examples))
    half_steps = math.ceil(full_steps / 2)
    done, total = 0, full_steps + half_steps * (len(samples) - 1)
    for number, indices in enumerate(samples):
        steps = half_steps if number else full_steps
        step_losses: list[float] = []

        def on_step(step: int, loss: float, done: int = done, step_losses: list[float] = step_losses) -> None:
            step_losses.append(loss)
            report(min(1.0, (done + step) / total))

        sample = [examples[index] for index in indices]
        adapter = trainer.train(sample, steps, seed + number, folder / str(number), on_step=on_step)
        [encoding] = encoder.encode([read_finetune(adapter)])
        if isinstance(encoding, CatalogError):
            raise encoding
        done += steps
        losses.append((step_losses[0], step_losses[-1]))
        for feature, vector in encoding.vectors.items():
            vectors[feature].append(vector)
    return Measurements({feature: np.stack(rows) for feature, rows in vectors.items()}, losses)


def rank_correlation(scores: Sequence[dict[str, Any]]) -> float | None:
    """Spearman's correlation of similarity and negative loss; None for fewer than three scored models, or if all
    similarities or all losses are equal.
    """
    scored = [(score["similarity"], -score["loss"]) for score in scores if score["loss"] is not None]
    similarities, gains = zip(*scored, strict=True) if scored else ((), ())
    if len(scored) < 3 or len(set(similarities)) == 1 or len(set(gains)) == 1:
        return None
    return float(spearmanr(similarities, gains).statistic)


def _write_targets(session: Session, encoder: Encoder, measurements: Measurements) -> dict[str, SpaceRow]:
    """The write target of each feature."""
    return {
        feature: spaces.get_write_target(session, encoder.space(feature), vectors.shape[1])
        for feature, vectors in measurements.vectors.items()
    }


def _score_fields(result: Losses | CatalogError) -> dict[str, Any]:
    if isinstance(result, CatalogError):
        return {"loss": None, "error": result.code}
    if not math.isfinite(result.per_token):
        return {"loss": None, "error": NonFiniteWeights.code}
    return {"loss": round(result.per_token, 4), "error": None}
