"""The examples of a task: what is asked, and the answer to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.errors import InvalidExamples

LEAST, MOST = 5, 200
MAX_CHARACTERS = 20_000  # a row
ROLES = ("system", "user", "assistant")

_OPENING = "Below is an instruction that describes a task"
_PAIRED = ", paired with an input that provides further context"
_ORDER = ". Write a response that appropriately completes the request.\n\n### Instruction:\n"


@dataclass(frozen=True)
class Example:
    """One row. A chat is one too: its last question is the instruction, what came before it the input, whose end
    matters most.
    """

    instruction: str
    output: str
    input: str = ""
    chat: bool = False

    def prompt(self, given: str | None = None) -> str:
        """The template of Alpaca (github.com/tatsu-lab/stanford_alpaca), with or without an input; `given` stands in
        for the row's own.
        """
        given = self.input if given is None else given
        middle = f"\n\n### Input:\n{given}" if given else ""
        return f"{_OPENING}{_PAIRED if given else ''}{_ORDER}{self.instruction}{middle}\n\n### Response:\n"


def read_examples(rows: Sequence[Any]) -> tuple[Example, ...]:
    """5 to 200 rows of `{instruction, input?, output}` or `{messages: [{role, content}, ...]}`.

    Raises `InvalidExamples`, which names the first row that is wrong, counted from 1.
    """
    if not LEAST <= len(rows) <= MOST:
        raise InvalidExamples(f"A task has {LEAST} to {MOST} examples; these are {len(rows)}.")
    return tuple(_read(row, number) for number, row in enumerate(rows, 1))


def read_rows(lines: Iterable[str]) -> list[Any]:
    """The rows of a JSON Lines file, not looked at; empty lines are passed over. Raises `InvalidExamples`."""
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise InvalidExamples(f"Line {number} is not JSON: {error}.") from error
    return rows


def hold_back(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(kept, held back): the last of them, at least one and at most half, in their order."""
    count = min(max(1, round(share * len(examples))), len(examples) // 2)
    return list(examples[:-count]), list(examples[-count:])


def _read(row: Any, number: int) -> Example:
    if not isinstance(row, dict):
        raise InvalidExamples(f"Example {number} is not a JSON object.")
    example = _from_chat(row["messages"], number) if "messages" in row else _from_fields(row, number)
    if sum(map(len, (example.instruction, example.input, example.output))) > MAX_CHARACTERS:
        raise InvalidExamples(f"Example {number} is longer than {MAX_CHARACTERS:,} characters.")
    return example


def _from_fields(row: dict[str, Any], number: int) -> Example:
    instruction, given, output = row.get("instruction"), row.get("input") or "", row.get("output")
    if not (isinstance(instruction, str) and isinstance(output, str) and isinstance(given, str)) or not (
        instruction.strip() and output.strip()
    ):
        raise InvalidExamples(
            f"Example {number} needs an `instruction` and an `output` with words in them, and perhaps an `input`; "
            "or the `messages` of a chat."
        )
    return Example(instruction, output, given)


def _from_chat(messages: Any, number: int) -> Example:
    wrong = InvalidExamples(
        f"Example {number}: `messages` are objects with a `role` (one of {', '.join(ROLES)}) and a `content` with "
        "words in it; the last is the assistant's, and a user's comes before it."
    )
    if not isinstance(messages, list) or len(messages) < 2:
        raise wrong
    for each in messages:
        if not isinstance(each, dict) or each.get("role") not in ROLES or not _is_text(each.get("content")):
            raise wrong
    *before, asked, answer = messages
    if (asked["role"], answer["role"]) != ("user", "assistant"):
        raise wrong
    turns = "\n".join(f"{each['role']}: {each['content']}" for each in before)
    return Example(asked["content"], answer["content"], turns, chat=True)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
