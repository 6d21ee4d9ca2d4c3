"""The tasks of the benchmark: examples for training, and rows for evaluation."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.selections import generated
from catalog.tasks.examples import Example

EXAMPLES = 15  # per task
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
    """A task that is created from `examples` and evaluated on `holdout`. `options` are the first words of the possible
    answers, if there are only a few.
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
    """The tasks of BIG-Bench Hard, whose rows are used only for evaluation; then unseen rows of the pool's domains."""
    bbh = [json.loads(line) for line in (rows / "bbh.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, (_, instruction, options) in generated.TASKS.items():
        task_rows = [row for row in bbh if row["task"] == name and (not options or row["target"] in options)]
        sample = random.Random(name).sample(task_rows, holdout)
        evaluated = [Example(instruction, row["target"], row["input"]) for row in sample]
        yield Task(name, "BIG-Bench Hard", generated.examples(name, EXAMPLES), evaluated, options)
    for name, (options, sources) in DOMAINS.items():
        unseen = [
            json.loads(line) for line in (rows / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[UNSEEN:]
        ]
        usable = [
            Example(row["instruction"], row["output"], row["input"])
            for row in unseen
            if (not sources or row["source"] in sources) and (not options or row["output"].startswith(options))
        ]
        domain_sample = random.Random(name).sample(usable, EXAMPLES + holdout)
        yield Task(name, "the pool's domains", domain_sample[:EXAMPLES], domain_sample[EXAMPLES:], options)
