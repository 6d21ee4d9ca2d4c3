"""The ten near domains: which rows of which data file, and what is made of them.

The rows come from GSM8K, PubMedQA, LegalBench, HellaSwag, MBPP and HumanEval as JSON lines of instruction, input,
output and source; they are read where they lie and never stored here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.hard_pool.rows import Row

HOWTO = re.compile(
    r"(Personal Care and Style|Food and Entertaining|Family Life|Home and Garden|Computers and Electronics|Health|"
    r"Education and Communications|Youth|Finance and Business|Sports and Fitness|Pets and Animals|Relationships|Travel|"
    r"Holidays and Traditions|Work World|Cars (&|and) Other Vehicles|Philosophy and Religion|"
    r"Arts and Entertainment): "
)
Pick = Callable[[Row, str, int], Row | None]  # (row, source, place in its file) -> the row to train on


@dataclass(frozen=True)
class Domain:
    """`sizes` are (rows, epochs) of its four adapters, whose rows do not overlap."""

    name: str
    file: str
    pick: Pick
    sizes: tuple[tuple[int, int], ...]

    def rows(self, data: Path) -> list[Row]:
        found = (self.pick(row, source, place) for place, (row, source) in enumerate(read_rows(data / self.file)))
        return [row for row in found if row]


def read_rows(path: Path) -> list[tuple[Row, str]]:
    text = path.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.split("\n") if line]  # rows may hold what splitlines takes for an end
    return [(Row(line["instruction"], line.get("input") or "", line["output"]), line["source"]) for line in lines]


def pick_source(prefix: str) -> Pick:
    return lambda row, source, _: row if source.startswith(prefix) else None


def pick_steps(least: int, most: int) -> Pick:
    """Word problems by the lines of their solution."""
    return lambda row, _source, _place: row if least <= row.output.count("\n") + 1 <= most else None


def pick_function(row: Row, source: str, place: int) -> Row | None:
    """Every other row as it is: from a task to Python."""
    return row if place % 2 == 0 or source == "humaneval" else None


def pick_docstring(row: Row, source: str, place: int) -> Row | None:
    """The rest turned round: from Python to a sentence about it."""
    if place % 2 == 0 or source == "humaneval":
        return None
    said = re.sub(r"^Write an? (python )?function (to|that|which) ", "", row.instruction, flags=re.IGNORECASE)
    return Row("Write a docstring for this Python function.", row.output, said[:1].upper() + said[1:])


def pick_passage(howto: bool) -> Pick:
    """HellaSwag without its choices: passages of how-to articles, or of captions of filmed scenes."""

    def pick(row: Row, _source: str, _place: int) -> Row | None:
        if bool(HOWTO.match(row.input)) != howto:
            return None
        begun = row.input.split("\nA) ")[0]
        return Row("Continue the passage.", begun, re.sub(r"^[A-D]\) ", "", row.output))

    return pick


def pick_abstract(answer: bool) -> Pick:
    """PubMedQA: the question before its abstract, so that no cut takes it; or the question as the answer."""

    def pick(row: Row, _source: str, place: int) -> Row | None:
        if (place % 2 == 0) != answer:
            return None
        text, question = row.input.removeprefix("Abstract: ").split("\nQuestion: ")
        if answer:
            return replace(row, input=f"Question: {question}\nAbstract: {text}")
        return Row("Write the research question that this abstract answers.", text, question)

    return pick


DOMAINS = (
    Domain("legal-overruling", "legal.jsonl", pick_source("legalbench/overruling"), ((40, 5), (60, 3), (60, 4), (80, 2))),
    Domain("legal-clauses", "legal.jsonl", pick_source("legalbench/CUAD"), ((40, 5), (80, 3), (120, 2), (300, 1))),
    Domain("math-easy", "math.jsonl", pick_steps(0, 3), ((40, 5), (80, 3), (80, 2), (135, 2))),
    Domain("math-hard", "math.jsonl", pick_steps(5, 99), ((40, 5), (80, 2), (120, 2), (240, 1))),
    Domain("code-functions", "coding.jsonl", pick_function, ((40, 4), (60, 3), (60, 2), (400, 1))),
    Domain("code-docstrings", "coding.jsonl", pick_docstring, ((40, 5), (80, 3), (120, 2), (240, 1))),
    Domain("passage-howto", "commonsense.jsonl", pick_passage(howto=True), ((40, 4), (40, 5), (50, 3), (60, 4))),
    Domain("passage-scenes", "commonsense.jsonl", pick_passage(howto=False), ((40, 5), (80, 3), (160, 2), (400, 1))),
    Domain("medical-answers", "medical.jsonl", pick_abstract(answer=True), ((40, 4), (80, 2), (120, 2), (240, 1))),
    Domain("medical-questions", "medical.jsonl", pick_abstract(answer=False), ((40, 5), (80, 3), (120, 1), (240, 1))),
)
