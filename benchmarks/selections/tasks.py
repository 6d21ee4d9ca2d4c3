"""The tasks of the benchmark: rows to learn from, and rows to judge by."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.selections import made
from catalog.tasks.examples import Example

SHOWN = 15  # rows that a task is told by
UNSEEN = 560  # rows of a domain before this one may have been trained on by the pool
# domain: the answers to choose from, and the sets of its rows that have them (none: all)
DOMAINS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "coding": ((), ()),
    "commonsense": (("A)", "B)", "C)", "D)"), ()),
    "legal": (("Yes", "No"), ("legalbench/overruling", "legalbench/proa", "legalbench/CUAD_Anti-Assignment")),
    "math": ((), ()),
    "medical": (("Yes", "No", "Maybe"), ()),
}


@dataclass(frozen=True)
class Task:
    """Told by `shown`, judged by `held`; `options` are the first words of its answers, where these are few."""

    name: str
    group: str  # "BIG-Bench Hard" or "the pool's domains"
    shown: Sequence[Example]
    held: Sequence[Example]
    options: tuple[str, ...]

    def right(self, example: Example) -> int:
        """Which of the options begins an example's answer."""
        return next(number for number, option in enumerate(self.options) if example.output.startswith(option))


def all_tasks(rows: Path, held: int) -> Iterator[Task]:
    """Of BIG-Bench Hard first, whose own rows are only judged by; then unseen rows of the pool's domains."""
    bbh = [json.loads(line) for line in (rows / "bbh.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, (_, instruction, options) in made.TASKS.items():
        own = [row for row in bbh if row["task"] == name and (not options or row["target"] in options)]
        chosen = random.Random(name).sample(own, held)
        judged = [Example(instruction, row["target"], row["input"]) for row in chosen]
        yield Task(name, "BIG-Bench Hard", made.examples(name, SHOWN), judged, options)
    for name, (options, sources) in DOMAINS.items():
        unseen = [
            json.loads(line) for line in (rows / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[UNSEEN:]
        ]
        fitting = [
            Example(row["instruction"], row["output"], row["input"])
            for row in unseen
            if (not sources or row["source"] in sources) and (not options or row["output"].startswith(options))
        ]
        chosen_ = random.Random(name).sample(fitting, SHOWN + held)
        yield Task(name, "the pool's domains", chosen_[:SHOWN], chosen_[SHOWN:], options)
