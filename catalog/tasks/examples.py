"""The examples of a task: instructions with the outputs that answer them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.errors import InvalidExamples

MIN_EXAMPLES, MAX_EXAMPLES = 5, 200
MAX_CHARACTERS = 20_000  # of an example
ROLES = ("system", "user", "assistant")

_OPENING = "Below is an instruction that describes a task"
_WITH_INPUT = ", paired with an input that provides further context"
_REQUEST = ". Write a response that appropriately completes the request.\n\n### Instruction:\n"


@dataclass(frozen=True)
class Example:
    """One example. In a chat, the last user message is the instruction, and the turns before it are the input, of which
    the latest matter most.
    """

    instruction: str
    output: str
    input: str = ""
    chat: bool = False

    def prompt(self, input_text: str | None = None) -> str:
        """The prompt in Alpaca's template (github.com/tatsu-lab/stanford_alpaca), with `input_text` or the example's
        own input, or without one if it is empty.
        """
        input_text = self.input if input_text is None else input_text
        input_section = f"\n\n### Input:\n{input_text}" if input_text else ""
        opening = f"{_OPENING}{_WITH_INPUT if input_text else ''}{_REQUEST}"
        return f"{opening}{self.instruction}{input_section}\n\n### Response:\n"


def parse_examples(rows: Sequence[Any]) -> tuple[Example, ...]:
    """Examples from 5 to 200 rows of `{instruction, input?, output}` or `{messages: [{role, content}, ...]}`.

    Raises `InvalidExamples`, which names the first invalid row, counted from 1.
    """
    if not MIN_EXAMPLES <= len(rows) <= MAX_EXAMPLES:
        raise InvalidExamples(f"A task needs {MIN_EXAMPLES} to {MAX_EXAMPLES} examples, not {len(rows)}.")
    return tuple(_parse(row, number) for number, row in enumerate(rows, 1))


def parse_json_lines(lines: Iterable[str]) -> list[Any]:
    """The rows of a JSON Lines file, not validated; empty lines are skipped. Raises `InvalidExamples`."""
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise InvalidExamples(f"Line {number} is not JSON: {error}.") from error
    return rows


def split_holdout(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(training examples, holdout), both in their order. The holdout is the end of the list: a `share` of it, at least
    one example and at most half of them.
    """
    count = min(max(1, round(share * len(examples))), len(examples) // 2)
    return list(examples[:-count]), list(examples[-count:])


def _parse(row: Any, number: int) -> Example:
    if not isinstance(row, dict):
        raise InvalidExamples(f"Example {number} is not a JSON object.")
    example = _from_chat(row["messages"], number) if "messages" in row else _from_fields(row, number)
    if sum(map(len, (example.instruction, example.input, example.output))) > MAX_CHARACTERS:
        raise InvalidExamples(f"Example {number} is longer than {MAX_CHARACTERS:,} characters.")
    return example


def _from_fields(row: dict[str, Any], number: int) -> Example:
    instruction, input_text, output = row.get("instruction"), row.get("input") or "", row.get("output")
    if not (_is_text(instruction) and _is_text(output) and isinstance(input_text, str)):
        raise InvalidExamples(
            f"Example {number} needs an `instruction` and an `output` that are not empty, and optionally an `input`; "
            "or the `messages` of a chat."
        )
    return Example(str(instruction), str(output), input_text)


def _from_chat(messages: Any, number: int) -> Example:
    invalid = InvalidExamples(
        f"Example {number}: each of the `messages` needs a `role` (one of {', '.join(ROLES)}) and a `content` that is "
        "not empty. The last message must be the assistant's and follow one of the user."
    )
    if not isinstance(messages, list) or len(messages) < 2:
        raise invalid
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES or not _is_text(message.get("content")):
            raise invalid
    *earlier, question, answer = messages
    if (question["role"], answer["role"]) != ("user", "assistant"):
        raise invalid
    turns = "\n".join(f"{message['role']}: {message['content']}" for message in earlier)
    return Example(question["content"], answer["content"], turns, chat=True)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
