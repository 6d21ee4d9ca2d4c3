"""What fine-tunes make of a task's held rows, and how the arms stand beside random choice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.selections.tasks import Task
from catalog.errors import CatalogError
from workers.encoding.encoder import Encoder
from workers.encoding.token_plan import plan_choices
from workers.encoding.trace import Trace
from workers.finetunes.reading import FineTune
from workers.tasks.scoring import losses_of
from workers.tasks.token_rows import encode

RESAMPLES = 10_000


@dataclass(frozen=True)
class Judged:
    """Nats a token of the answers; and the share of rows whose answer is the likeliest of the options."""

    loss: float
    accuracy: float | None

    def as_dict(self) -> dict[str, float | None]:
        return {"loss": round(self.loss, 4), "accuracy": self.accuracy}


class Judge:
    """The held rows of one task, as tokens: each with its answer and all options behind it."""

    def __init__(self, encoder: Encoder, task: Task, limit: int) -> None:
        self._encoder, self._task = encoder, task
        options = [encoder.base.tokenizer(each, add_special_tokens=False)["input_ids"] for each in task.options]
        rows = [encode(example, encoder.base.tokenizer, limit) for example in task.held]
        choices = [(row.ids[: row.prompt], [row.ids[row.prompt :], *options]) for row in rows]
        self._plan = plan_choices(choices).to(encoder.base.device)

    def base(self) -> Judged:
        return self._judge(self._encoder.trace_base(self._plan))

    def finetune(self, finetune: FineTune) -> Judged:
        [trace] = self._encoder.trace([finetune], self._plan)
        if isinstance(trace, CatalogError):
            raise trace
        return self._judge(trace)

    def _judge(self, trace: Trace) -> Judged:
        losses, each = losses_of(trace), len(self._task.options) + 1
        summed, tokens = losses.summed.reshape(-1, each), losses.tokens.reshape(-1, each)
        loss = float(summed[:, 0].sum() / tokens[:, 0].sum())
        if not self._task.options:
            return Judged(loss, None)
        right = np.array([self._task.right(example) for example in self._task.held])
        return Judged(loss, float((summed[:, 1:].argmin(axis=1) == right).mean()))


def summary(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For all tasks and each group of them: each arm's mean over tasks and seeds, and its difference from random."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for task in found:
        for group in ("all tasks", task["group"]):
            groups[group].append(task)
    return [
        {"group": group, "measure": measure, "tasks": len(some), **_measured(some, measure)}
        for group, tasks in groups.items()
        for measure in ("loss", "accuracy")
        if (some := [task for task in tasks if task["base"][measure] is not None])
    ]


def _measured(tasks: Sequence[dict[str, Any]], measure: str) -> dict[str, Any]:
    of_arms = {
        arm: np.array([[run["held"][measure] for run in task["arms"][arm]] for task in tasks])  # (T, S)
        for arm in tasks[0]["arms"]
    }
    alone = {name: float(np.mean([task[name][measure] for task in tasks])) for name in ("base", "nearest_alone")}
    arms = {
        arm: {"mean": float(values.mean()), "beside_random": interval(values - of_arms["random"])}
        for arm, values in of_arms.items()
    }
    return {**alone, "arms": arms}


def interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95% bounds of paired differences (tasks, seeds): tasks are drawn anew, and in each its seeds."""
    draw = np.random.default_rng(seed)
    tasks, seeds = differences.shape
    rows = draw.integers(tasks, size=(RESAMPLES, tasks, 1))
    columns = draw.integers(seeds, size=(RESAMPLES, tasks, seeds))
    means = differences[rows, columns].mean(axis=(1, 2))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)
