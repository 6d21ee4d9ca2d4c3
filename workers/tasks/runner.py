"""A task's job on one base: train on the examples, measure what came out, score the models that are near."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sqlalchemy.orm import Session

from catalog.archives import repository as archives
from catalog.errors import CatalogError, DatabaseUnavailable, ExamplesGone, NonFiniteWeights, Refused, Unavailable
from catalog.jobs.repository import attempts
from catalog.spaces import repository as spaces
from catalog.tables import Job, Model, SpaceRow, Task, TaskRun
from catalog.tasks import repository as tasks
from catalog.tasks.examples import Example, hold_back
from catalog.tasks.nearest import nearest
from catalog.tasks.service import HELD_BACK
from catalog.tasks.training_config import Recipe
from catalog.tasks.uncertainty import parts
from workers.bases.residents import Resident
from workers.encoding.encoder import Encoder
from workers.finetunes.reading import read_finetune
from workers.ingest.exclusive import JobRunner
from workers.process.cancellation import check
from workers.process.file_locks import Hold
from workers.process.retries import patiently
from workers.process.scratch import scratch
from workers.process.zip_archive import packed
from workers.tasks.card import write_card
from workers.tasks.scoring import Losses, Scorer
from workers.tasks.trainer import Trainer


@dataclass(frozen=True)
class Measured:
    """Of each feature the vectors (1 + h, d), of all examples and of halves of them; and of each adapter the losses a
    token of the first and the last step.
    """

    vectors: dict[str, np.ndarray]
    losses: list[tuple[float, float]]


class TaskRunner(JobRunner):
    """Runs the jobs of tasks, one at a time, on the bases in memory."""

    title = "a task"

    def run(self, job: Job) -> None:
        start = time.monotonic()
        with self._database.transaction() as session:
            task, run = tasks.run_of(session, job.model_id)
        if task.examples is None:
            raise ExamplesGone(f"The examples of task {task.id} have been forgotten: ask again with `POST /v1/tasks`.")
        examples = [Example(**each) for each in task.examples]
        kept, held = hold_back(examples, HELD_BACK) if task.verify else (examples, [])
        resident = self._bases.get(self._fetcher.base(run.base_repo, run.base_sha))
        recipe = Recipe(**task.recipe)
        tell, share = self._reports_on(job), 0.8 if held else 1.0
        with scratch() as folder:
            adapter = folder / "0"  # that of all examples
            measured = measure(resident.encoder, kept, recipe, task.seed, folder, lambda done: tell(done * share))
            trained = time.monotonic() - start
            scorer = Scorer(resident.encoder, held, recipe.tokens) if held else None
            scores = self._verify(task, resident, measured, scorer) if scorer else {}
            figures = {
                "seconds": round(time.monotonic() - start, 2),
                "seconds_training": round(trained, 2),
                "losses": [[round(each, 4) for each in pair] for pair in measured.losses],
                "held_back": len(held),
            }
            if task.keep_adapter:
                write_card(adapter, task, run.base_repo, len(kept))
            kept_in = adapter if task.keep_adapter else None
            patiently(lambda: self._store(job, run, resident, measured, figures | scores, kept_in))

    def _verify(self, task: Task, resident: Resident, measured: Measured, scorer: Scorer) -> dict[str, Any]:
        """The losses of the nearest models, and of the base, on the examples that were held back."""
        with self._database.transaction() as session:
            homes = _homes(session, resident, measured)
            found = nearest(session, homes, measured.vectors, task.verify)
        lines: list[dict[str, Any]] = []
        for model, similarity in found:
            check()
            result = self._score(scorer, model)
            lines.append({"repo_id": model.repo_id, "similarity": round(similarity, 4), **_told(result)})
        base = scorer.base().per_token
        return {"base_loss": round(base, 4), "agreement": agreement(lines), "scores": lines}

    def _score(self, scorer: Scorer, model: Model) -> Losses | CatalogError:
        hold = Hold()
        try:
            [result] = scorer.finetunes([self._fetcher.again(model, hold)])
            return result
        except DatabaseUnavailable:
            raise
        except (Refused, Unavailable) as error:  # one that cannot be had now spoils no other, nor the task
            return error
        finally:
            hold.release()

    def _store(
        self,
        job: Job,
        run: TaskRun,
        resident: Resident,
        measured: Measured,
        figures: dict[str, Any],
        adapter: Path | None,
    ) -> None:
        with self._database.transaction() as session:
            if not attempts.finish(session, job.id, self._worker_id, None):
                return
            homes = _homes(session, resident, measured)
            stored = {homes[feature].id: vectors for feature, vectors in measured.vectors.items()}
            tasks.store(session, run.id, stored, figures)
            if adapter is not None:
                with packed(adapter) as file:
                    archives.store(session, job.model_id, file)
            tasks.forget_examples(session)


def measure(
    encoder: Encoder,
    examples: Sequence[Example],
    recipe: Recipe,
    seed: int,
    folder: Path,
    tell: Callable[[float], None],
) -> Measured:
    """Train a task's adapters and measure them; `tell` is called with how much of it is done, from 0 to 1. On half of
    the examples half the steps are made. The adapters stay in `folder`, each in one of its own: `0` is of all examples.
    """
    trainer = Trainer(encoder.base, recipe)
    vectors: dict[str, list[np.ndarray]] = defaultdict(list)
    losses: list[tuple[float, float]] = []
    chosen = parts(len(examples), seed)
    whole = recipe.steps(len(examples))
    half = math.ceil(whole / 2)
    done, total = 0, whole + half * (len(chosen) - 1)
    for number, places in enumerate(chosen):
        steps = half if number else whole
        seen: list[float] = []

        def on_step(step: int, loss: float, done: int = done, seen: list[float] = seen) -> None:
            seen.append(loss)
            tell(min(1.0, (done + step) / total))

        some = [examples[place] for place in places]
        adapter = trainer.train(some, steps, seed + number, folder / str(number), on_step=on_step)
        [encoding] = encoder.encode([read_finetune(adapter)])
        if isinstance(encoding, CatalogError):
            raise encoding
        done += steps
        losses.append((seen[0], seen[-1]))
        for feature, vector in encoding.vectors.items():
            vectors[feature].append(vector)
    return Measured({feature: np.stack(each) for feature, each in vectors.items()}, losses)


def agreement(lines: Sequence[dict[str, Any]]) -> float | None:
    """Spearman's correlation of similarities and losses saved; None under three models, or where all are alike."""
    scored = [(line["similarity"], -line["loss"]) for line in lines if line["loss"] is not None]
    similar, saved = zip(*scored, strict=True) if scored else ((), ())
    if len(scored) < 3 or len(set(similar)) == 1 or len(set(saved)) == 1:
        return None
    return float(spearmanr(similar, saved).statistic)


def _homes(session: Session, resident: Resident, measured: Measured) -> dict[str, SpaceRow]:
    """The spaces of each feature in which models of that base are stored."""
    return {
        feature: spaces.home(session, resident.encoder.space(feature), vectors.shape[1])
        for feature, vectors in measured.vectors.items()
    }


def _told(result: Losses | CatalogError) -> dict[str, Any]:
    if isinstance(result, CatalogError):
        return {"loss": None, "error": result.code}
    if not math.isfinite(result.per_token):
        return {"loss": None, "error": NonFiniteWeights.code}
    return {"loss": round(result.per_token, 4), "error": None}
