"""Every task's and group's difference from random, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalog.selections.strategies import Arm
from workers.evaluation.plots import new_figure, save

CHOSEN = (Arm.NEAREST, Arm.ANCHORED, Arm.DIVERSE)
GAP = 0.24  # between the arms of one line


def draw(path: Path, found: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]]) -> None:
    """A line for each group with its 95% interval, then one for each task with its seeds as points; left of zero is
    better than random. Raises `MissingExtra`.
    """
    tasks = sorted(found, key=lambda task: (task["group"], task["task"]))
    losses = [group for group in groups if group["measure"] == "loss"]
    names = [f"{group['group']} ({group['tasks']})" for group in losses] + [task["task"] for task in tasks]
    figure = new_figure(8, 0.42 * len(names) + 1.2)
    axes = figure.subplots()
    for number, arm in enumerate(CHOSEN):
        colour, shift = f"C{number}", (number - 1) * GAP
        for line, group in enumerate(losses):
            mean, low, high = group["arms"][arm]["beside_random"]
            axes.plot([low, high], [line + shift] * 2, color=colour, linewidth=2)
            axes.plot(mean, line + shift, "D", color=colour, markersize=5, label=arm if line == 0 else None)
        for line, task in enumerate(tasks, len(losses)):
            seeds = differences(task, arm)
            axes.plot(seeds, [line + shift] * seeds.size, "o", color=colour, markersize=3, alpha=0.45)
            axes.plot(seeds.mean(), line + shift, "D", color=colour, markersize=5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axhline(len(losses) - 0.5, color="grey", linewidth=0.6, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.2)
    ticks = (-2, -1, -0.5, -0.2, -0.1, 0, 0.1, 0.2, 0.5, 1, 2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("nats a token, less those of random sets (left is better)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    save(figure, path)


def differences(task: dict[str, Any], arm: Arm) -> np.ndarray:
    """Losses of an arm's sets less those of `random`, seed by seed: (S,)."""
    chosen, control = (np.array([run["held"]["loss"] for run in task["arms"][name]]) for name in (arm, Arm.RANDOM))
    return np.asarray(chosen - control)
