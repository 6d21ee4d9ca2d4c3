"""The ten similar domains: the rows of each domain, and how they are converted to training examples.

The rows are from GSM8K, PubMedQA, LegalBench, HellaSwag, MBPP and HumanEval, as JSON lines with instruction, input,
output and source. They are not part of this repository.
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
Pick = Callable[[Row, str, int], Row | None]  # (row, source, index in the file) -> training row


@dataclass(frozen=True)
class Domain:
    """A domain and the (rows, epochs) of its four adapters, whose rows do not overlap."""

    name: str
    file: str
    pick: Pick
    sizes: tuple[tuple[int, int], ...]

    def rows(self, data: Path) -> list[Row]:
        rows = (self.pick(row, source, index) for index, (row, source) in enumerate(read_rows(data / self.file)))
        return [row for row in rows if row]


def read_rows(path: Path) -> list[tuple[Row, str]]:
    text = path.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.split("\n") if line]  # splitlines would split at other characters too
    return [(Row(line["instruction"], line.get("input") or "", line["output"]), line["source"]) for line in lines]


def pick_source(prefix: str) -> Pick:
    return lambda row, source, _: row if source.startswith(prefix) else None


def pick_steps(minimum: int, maximum: int) -> Pick:
    """Word problems with a solution of `minimum` to `maximum` lines."""
    return lambda row, _source, _index: row if minimum <= row.output.count("\n") + 1 <= maximum else None


def pick_function(row: Row, source: str, index: int) -> Row | None:
    """Every other row unchanged: from a task to Python code."""
    return row if index % 2 == 0 or source == "humaneval" else None


def pick_docstring(row: Row, source: str, index: int) -> Row | None:
    """The remaining rows reversed: from Python code to its description."""
    if index % 2 == 0 or source == "humaneval":
        return None
    description = re.sub(r"^Write an? (python )?function (to|that|which) ", "", row.instruction, flags=re.IGNORECASE)
    return Row("Write a docstring for this Python function.", row.output, description[:1].upper() + description[1:])


def pick_passage(howto: bool) -> Pick:
    """HellaSwag without the answer choices: passages from how-to articles, or captions of video scenes."""

    def pick(row: Row, _source: str, _index: int) -> Row | None:
        if bool(HOWTO.match(row.input)) != howto:
            return None
        beginning = row.input.split("\nA) ")[0]
        return Row("Continue the passage.", beginning, re.sub(r"^[A-D]\) ", "", row.output))

    return pick


def pick_abstract(answer: bool) -> Pick:
    """PubMedQA: answer the question, which precedes the abstract so that it is never truncated; or write it."""

    def pick(row: Row, _source: str, index: int) -> Row | None:
        if (index % 2 == 0) != answer:
            return None
        text, question = row.input.removeprefix("Abstract: ").split("\nQuestion: ")
        if answer:
            return replace(row, input=f"Question: {question}\nAbstract: {text}")
        return Row("Write the research question that this abstract answers.", text, question)

    return pick


DOMAINS = (
    Domain(
        "legal-overruling", "legal.jsonl", pick_source("legalbench/overruling"), ((40, 5), (60, 3), (60, 4), (80, 2))
    ),
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
