"""A plot of the differences from random selection, by task and by group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.selections.strategies import COMPARED, RANDOM
from workers.evaluation.plots import new_figure, save

GAP = 0.24  # between the strategies of one line


def draw(path: Path, results: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]]) -> None:
    """One line for each group with its 95% interval, then one for each task with its seeds as points; left of zero is
    better than random. Raises `MissingExtra`.
    """
    tasks = sorted(results, key=lambda task: (task["group"], task["task"]))
    losses = [group for group in groups if group["measure"] == "loss"]
    names = [f"{group['group']} ({group['tasks']})" for group in losses] + [task["task"] for task in tasks]
    figure = new_figure(8, 0.42 * len(names) + 1.2)
    axes = figure.subplots()
    for number, strategy in enumerate(COMPARED):
        color, shift = f"C{number}", (number - 1) * GAP
        for line, group in enumerate(losses):
            mean, low, high = group["strategies"][strategy]["delta_vs_random"]
            axes.plot([low, high], [line + shift] * 2, color=color, linewidth=2)
            axes.plot(mean, line + shift, "D", color=color, markersize=5, label=strategy if line == 0 else None)
        for line, task in enumerate(tasks, len(losses)):
            seeds = differences(task, strategy)
            axes.plot(seeds, [line + shift] * seeds.size, "o", color=color, markersize=3, alpha=0.45)
            axes.plot(seeds.mean(), line + shift, "D", color=color, markersize=5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axhline(len(losses) - 0.5, color="gray", linewidth=0.6, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.2)
    ticks = (-2, -1, -0.5, -0.2, -0.1, 0, 0.1, 0.2, 0.5, 1, 2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("difference from random sets, nats per token (left is better)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    save(figure, path)


def differences(task: dict[str, Any], strategy: str) -> np.ndarray:
    """The losses of a strategy's sets minus those of random sets, by seed: (S,)."""
    losses, control = (
        np.array([run["holdout"]["loss"] for run in task["strategies"][name]]) for name in (strategy, RANDOM)
    )
    return np.asarray(losses - control)
