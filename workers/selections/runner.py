"""Runs selections: select sets of adapters for a task, compose them on its examples, evaluate them on the holdout."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from catalog.errors import CatalogError, ExamplesDeleted, NonFiniteWeights
from catalog.jobs.repository import attempts
from catalog.selections import repository as selections
from catalog.selections import service as selection_service
from catalog.selections.strategies import STRATEGIES, Select, Strategy, nearest
from catalog.tables import Job, Selection, Task
from catalog.tasks import repository as tasks
from catalog.tasks.examples import Example, split_holdout
from catalog.tasks.nearest import select_preferred
from catalog.tasks.service import HOLDOUT_SHARE
from catalog.tasks.training_config import TrainingConfig
from workers.encoding.encoder import Encoder
from workers.finetunes.reading import FineTune
from workers.ingest.job_runner import JobRunner, Report
from workers.process.retries import retry_while_database_down
from workers.process.stages import Stage
from workers.selections.members import MAX_REFUSED, MemberLoader
from workers.selections.results import TrialResult
from workers.selections.weights import compose, weighted_sum
from workers.tasks.scoring import Scorer

SHOTS = 5  # examples that weights are chosen by, as in LoRAHub


@dataclass(eq=False)
class SelectionRunner(JobRunner):
    """Runs the jobs of selections, one at a time, on the bases in memory."""

    title = "a selection"
    stage = Stage.SELECT

    max_refused: int = field(default=MAX_REFUSED, kw_only=True)

    def run(self, job: Job) -> None:
        start = time.monotonic()
        with self.database.transaction() as session:
            selection = selections.get_by_model(session, job.model_id)
            task = tasks.get(session, selection.task_id)
            run = next(run for run in task.runs if run.id == selection.run_id)
            space, vectors = select_preferred(tasks.get_vectors(session, run.id))
            candidates = selection_service.list_candidates(
                session, run.base_repo, space, vectors[0], selection.team_tags
            )
        if task.examples is None:
            raise ExamplesDeleted(
                f"The examples of task {task.id} have been deleted: create it again with `keep_examples`."
            )
        encoder = self.bases.get(self.fetcher.resolve_base(run.base_repo, run.base_sha)).encoder
        loader = MemberLoader(self.database, self.fetcher, encoder.base, candidates, max_refused=self.max_refused)
        strategies = {name: STRATEGIES[Strategy(name)] for name in selection.strategies}
        metrics = evaluate(encoder, loader, strategies, selection, task, self._reporter_for(job))
        metrics |= {"seconds": round(time.monotonic() - start, 2), "candidates": len(candidates)}

        def store() -> None:
            with self.database.transaction() as session:
                if attempts.finish(session, job.id, self.worker_id, None):
                    selections.store_metrics(session, selection.id, metrics)

        retry_while_database_down(store)


def evaluate(
    encoder: Encoder,
    loader: MemberLoader,
    strategies: Mapping[str, Select],
    selection: Selection,
    task: Task,
    report: Report,
) -> dict[str, Any]:
    """Compose the set of each strategy and measure it on the holdout. The weights of all sets are chosen by the
    same `SHOTS` examples, which the seed draws.
    """
    assert task.examples is not None
    examples, holdout = split_holdout([Example(**row) for row in task.examples], HOLDOUT_SHARE)
    limit = TrainingConfig(**task.training_config).max_tokens
    holdout_scorer = Scorer(encoder, holdout, limit)
    sets = loader.load(strategies, selection.count)
    shots = random.Random(selection.seed).sample(examples, min(SHOTS, len(examples)))
    shots_scorer = Scorer(encoder, shots, limit)
    results = []
    for index, (strategy, members) in enumerate(sets.items()):
        adapters = [member.adapter for member in members]

        def on_progress(done: float, index: int = index) -> None:
            report((index + done) / len(sets))

        best = compose(shots_scorer, adapters, selection.budget, on_progress)
        holdout_loss = _loss(holdout_scorer, weighted_sum(adapters, best.weights))
        results.append(TrialResult(strategy, members, best.weights, best.loss, holdout_loss))
    [nearest_member] = loader.load({"nearest": nearest}, 1)["nearest"]
    return {
        "left_out": [{"repo_id": name, "error": code} for name, code in loader.left_out.items()],
        "examples": len(examples),
        "holdout_examples": len(holdout),
        "holdout_unseen": task.verify > 0,  # then the task's vector was made without the holdout, too
        "base_loss": round(holdout_scorer.base().per_token, 4),
        "nearest_alone": {
            "repo_id": nearest_member.adapter.name,
            "holdout_loss": round(_loss(holdout_scorer, nearest_member.adapter.finetune), 4),
        },
        "strategies": [result.as_dict() for result in results],
    }


def _loss(holdout_scorer: Scorer, finetune: FineTune) -> float:
    """In nats per token. Raises `NonFiniteWeights`, and errors of the fine-tune."""
    [result] = holdout_scorer.finetunes([finetune])
    if isinstance(result, CatalogError):
        raise result
    if not math.isfinite(result.per_token):
        raise NonFiniteWeights(f"The loss of {finetune.name} on the holdout is not finite.")
    return result.per_token
