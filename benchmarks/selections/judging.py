"""The losses of fine-tunes on the holdout of a task, and the differences of strategies from random selection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.selections.strategies import RANDOM
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
class Score:
    """The loss of the answers in nats per token, and the share of rows whose right answer is the likeliest option."""

    loss: float
    accuracy: float | None

    def as_dict(self) -> dict[str, float | None]:
        return {"loss": round(self.loss, 4), "accuracy": self.accuracy}


class HoldoutScorer:
    """Score models on the holdout of a task. Each row is followed by its answer and by each option."""

    def __init__(self, encoder: Encoder, task: Task, limit: int) -> None:
        self._encoder, self._task = encoder, task
        options = [encoder.base.tokenizer(option, add_special_tokens=False)["input_ids"] for option in task.options]
        rows = [encode(example, encoder.base.tokenizer, limit) for example in task.holdout]
        choices = [(row.ids[: row.prompt_length], [row.ids[row.prompt_length :], *options]) for row in rows]
        self._plan = plan_choices(choices).to(encoder.base.device)

    def score_base(self) -> Score:
        return self._score(self._encoder.trace_base(self._plan))

    def score_finetune(self, finetune: FineTune) -> Score:
        [trace] = self._encoder.trace([finetune], self._plan)
        if isinstance(trace, CatalogError):
            raise trace
        return self._score(trace)

    def _score(self, trace: Trace) -> Score:
        losses, answers = losses_of(trace), len(self._task.options) + 1
        summed, tokens = losses.summed.reshape(-1, answers), losses.tokens.reshape(-1, answers)
        loss = float(summed[:, 0].sum() / tokens[:, 0].sum())
        if not self._task.options:
            return Score(loss, None)
        right = np.array([self._task.right_option(example) for example in self._task.holdout])
        return Score(loss, float((summed[:, 1:].argmin(axis=1) == right).mean()))


def summarize(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean of each strategy over tasks and seeds, and its difference from random, for all tasks and each group."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        for group in ("all tasks", result["group"]):
            groups[group].append(result)
    return [
        {"group": group, "measure": measure, "tasks": len(measured), **_means(measured, measure)}
        for group, members in groups.items()
        for measure in ("loss", "accuracy")
        if (measured := [result for result in members if result["base"][measure] is not None])
    ]


def _means(results: Sequence[dict[str, Any]], measure: str) -> dict[str, Any]:
    by_strategy = {
        name: np.array(
            [[run["holdout"][measure] for run in result["strategies"][name]] for result in results]
        )  # (T, S)
        for name in results[0]["strategies"]
    }
    alone = {name: float(np.mean([result[name][measure] for result in results])) for name in ("base", "nearest_alone")}
    strategies = {
        name: {"mean": float(values.mean()), "delta_vs_random": difference_interval(values - by_strategy[RANDOM])}
        for name, values in by_strategy.items()
    }
    return {**alone, "strategies": strategies}


def difference_interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95% bounds of paired differences (tasks, seeds), by a bootstrap over tasks and the seeds of each."""
    draw = np.random.default_rng(seed)
    tasks, seeds = differences.shape
    rows = draw.integers(tasks, size=(RESAMPLES, tasks, 1))
    columns = draw.integers(seeds, size=(RESAMPLES, tasks, seeds))
    means = differences[rows, columns].mean(axis=(1, 2))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)
