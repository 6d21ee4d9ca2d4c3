"""The tasks of the benchmark: examples to learn from, and rows to evaluate on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.selections import generated
from catalog.tasks.examples import Example

EXAMPLES = 15  # of a task
UNSEEN = 560  # the first row of a domain that no adapter of the pool was trained on
# by domain: the possible answers, and the sources of rows that have them (none: all)
DOMAINS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "coding": ((), ()),
    "commonsense": (("A)", "B)", "C)", "D)"), ()),
    "legal": (("Yes", "No"), ("legalbench/overruling", "legalbench/proa", "legalbench/CUAD_Anti-Assignment")),
    "math": ((), ()),
    "medical": (("Yes", "No", "Maybe"), ()),
}


@dataclass(frozen=True)
class Task:
    """Created from `examples`, evaluated on `holdout`. `options` are the first words of the possible answers, where
    these are few.
    """

    name: str
    group: str  # "BIG-Bench Hard" or "the pool's domains"
    examples: Sequence[Example]
    holdout: Sequence[Example]
    options: tuple[str, ...]

    def right_option(self, example: Example) -> int:
        """The index of the option that an example's answer begins with."""
        return next(index for index, option in enumerate(self.options) if example.output.startswith(option))


def all_tasks(rows: Path, holdout: int) -> Iterator[Task]:
    """The tasks of BIG-Bench Hard, whose own rows are only evaluated on; then unseen rows of the pool's domains."""
    bbh = [json.loads(line) for line in (rows / "bbh.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, (_, instruction, options) in generated.TASKS.items():
        of_task = [row for row in bbh if row["task"] == name and (not options or row["target"] in options)]
        sample = random.Random(name).sample(of_task, holdout)
        evaluated = [Example(instruction, row["target"], row["input"]) for row in sample]
        yield Task(name, "BIG-Bench Hard", generated.examples(name, EXAMPLES), evaluated, options)
    for name, (options, sources) in DOMAINS.items():
        unseen = [
            json.loads(line) for line in (rows / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[UNSEEN:]
        ]
        fitting = [
            Example(row["instruction"], row["output"], row["input"])
            for row in unseen
            if (not sources or row["source"] in sources) and (not options or row["output"].startswith(options))
        ]
        domain_sample = random.Random(name).sample(fitting, EXAMPLES + holdout)
        yield Task(name, "the pool's domains", domain_sample[:EXAMPLES], domain_sample[EXAMPLES:], options)
