"""A selection's job: propose sets of modules for a task, compose them on its examples, judge them by others."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

from catalog.database import Database
from catalog.errors import CatalogError, ExamplesGone, NonFiniteWeights
from catalog.jobs.repository import attempts
from catalog.selections import repository as selections
from catalog.selections import service as selection_service
from catalog.selections.strategies import Arm
from catalog.tables import Job, Selection, Task
from catalog.tasks import repository as tasks
from catalog.tasks.examples import Example, hold_back
from catalog.tasks.nearest import leading
from catalog.tasks.service import HELD_BACK
from catalog.tasks.training_config import Recipe
from workers.bases.residents import ResidentBases
from workers.encoding.encoder import Encoder
from workers.finetunes.reading import FineTune
from workers.ingest.exclusive import JobRunner, Reporter, report_progress
from workers.ingest.fetcher import Fetcher
from workers.process.retries import patiently
from workers.selections import results
from workers.selections.candidates import MAX_REFUSED, Modules
from workers.selections.results import Tried
from workers.selections.weights import compose, weighted
from workers.tasks.scoring import Scorer

SHOTS = 5  # examples that a set is composed on, as in LoRAHub


class SelectionRunner(JobRunner):
    """Runs the jobs of selections, one at a time, on the bases in memory."""

    title = "a selection"

    def __init__(
        self,
        database: Database,
        bases: ResidentBases,
        fetcher: Fetcher,
        worker_id: int,
        *,
        reporter: Reporter = report_progress,
        max_refused: int = MAX_REFUSED,
    ) -> None:
        super().__init__(database, bases, fetcher, worker_id, reporter=reporter)
        self._max_refused = max_refused

    def run(self, job: Job) -> None:
        start = time.monotonic()
        with self._database.transaction() as session:
            selection = selections.of_model(session, job.model_id)
            task = tasks.get(session, selection.task_id)
            run = next(run for run in task.runs if run.id == selection.run_id)
            space, vectors = leading(tasks.vectors(session, run.id))
            candidates = selection_service.candidates(session, run.base_repo, space, vectors[0])
        if task.examples is None:
            raise ExamplesGone(f"The examples of task {task.id} have been forgotten: ask it again, to keep them.")
        encoder = self._bases.get(self._fetcher.base(run.base_repo, run.base_sha)).encoder
        modules = Modules(self._database, self._fetcher, encoder.base, candidates, max_refused=self._max_refused)
        found = measure(encoder, modules, selection, task, self._reports_on(job))
        found |= {"seconds": round(time.monotonic() - start, 2), "candidates": len(candidates)}

        def store() -> None:
            with self._database.transaction() as session:
                if attempts.finish(session, job.id, self._worker_id, None):
                    selections.store(session, selection.id, found)

        patiently(store)


def measure(
    encoder: Encoder, modules: Modules, selection: Selection, task: Task, tell: Callable[[float], None]
) -> dict[str, Any]:
    """The figures of a selection; `tell` is called with how much of it is done, from 0 to 1.

    Each seed draws `SHOTS` examples anew, and what of the sets is random.
    """
    assert task.examples is not None
    kept, held = hold_back([Example(**each) for each in task.examples], HELD_BACK)
    limit = Recipe(**task.recipe).tokens
    judge = Scorer(encoder, held, limit)
    arms = [Arm(name) for name in selection.arms]
    tried: dict[Arm, list[Tried]] = {arm: [] for arm in arms}
    for number in range(selection.seeds):
        seed = selection.seed + number
        sets = modules.propose(arms, selection.count, seed)
        shots = random.Random(seed).sample(kept, min(SHOTS, len(kept)))
        scorer = Scorer(encoder, shots, limit)
        for place, arm in enumerate(arms):
            parts = [each.part for each in sets[arm]]
            begun = number * len(arms) + place

            def on_try(done: float, begun: int = begun) -> None:
                tell((begun + done) / (selection.seeds * len(arms)))

            best = compose(scorer, parts, selection.budget, on_try)
            weighed = zip(sets[arm], best.weights, strict=True)
            of_it = tuple((each.part.name, each.similarity, weight) for each, weight in weighed)
            tried[arm].append(Tried(seed, of_it, best.loss, _loss(judge, weighted(parts, best.weights))))
    [nearest] = modules.propose([Arm.NEAREST], 1, selection.seed)[Arm.NEAREST]
    return {
        "left_out": [{"repo_id": name, "error": code} for name, code in modules.left_out.items()],
        "examples": len(kept),
        "held_out": len(held),
        "held_out_unseen": task.verify > 0,  # then the task's vector was not trained on them either
        "base_loss": round(judge.base().per_token, 4),
        "nearest_alone": {"repo_id": nearest.part.name, "held_out_loss": round(_loss(judge, nearest.part.finetune), 4)},
        "arms": results.arms(tried),
    }


def _loss(judge: Scorer, finetune: FineTune) -> float:
    """Nats a token. Raises `NonFiniteWeights`, and what is wrong with the fine-tune."""
    [result] = judge.finetunes([finetune])
    if isinstance(result, CatalogError):
        raise result
    if not math.isfinite(result.per_token):
        raise NonFiniteWeights(f"{finetune.name} says the examples with a loss that is no number.")
    return result.per_token
