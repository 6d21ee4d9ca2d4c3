from __future__ import annotations

from typing import Any

import pytest

from catalog.errors import InvalidExamples
from catalog.tasks.examples import MAX_CHARACTERS, Example, parse_examples, parse_json_lines, split_holdout

ROW = {"instruction": "Add.", "input": "1 + 1", "output": "2"}


def test_rows_with_and_without_an_input_are_parsed():
    assert parse_examples([ROW] * 5)[0] == Example("Add.", "2", "1 + 1")
    assert parse_examples([{"instruction": "Say hi.", "output": "hi"}] * 5)[0] == Example("Say hi.", "hi")


def test_chat_has_the_last_question_as_instruction_and_earlier_turns_as_input():
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "One and one?"},
        {"role": "assistant", "content": "Two"},
    ]
    [first, *_] = parse_examples([{"messages": messages}] * 5)
    assert first == Example("One and one?", "Two", "system: Be short.\nuser: Hello\nassistant: Hi", chat=True)


def test_prompt_follows_alpacas_template():
    assert Example("Add.", "2", "1 + 1").prompt() == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Input:\n1 + 1\n\n### Response:\n"
    )
    assert Example("Say hi.", "hi").prompt() == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nSay hi.\n\n### Response:\n"
    )


@pytest.mark.parametrize("count", [0, 4, 201])
def test_too_few_or_too_many_examples_are_refused(count: int):
    with pytest.raises(InvalidExamples, match=f"not {count}"):
        parse_examples([ROW] * count)


@pytest.mark.parametrize(
    "row",
    [
        "a text",
        {"instruction": "Add."},
        {"instruction": " ", "output": "2"},
        {"instruction": "Add.", "output": "2", "input": 7},
        {"messages": []},
        {"messages": [{"role": "user", "content": "Hello"}]},
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "user", "content": "Hello"}]},
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": ""}]},
        {"messages": [{"role": "robot", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]},
        {"instruction": "Add.", "output": "2" * MAX_CHARACTERS},
    ],
)
def test_error_names_the_first_invalid_row(row: Any):
    with pytest.raises(InvalidExamples, match="Example 4"):
        parse_examples([ROW, ROW, ROW, row, ROW])


def test_error_names_the_first_line_that_is_not_json():
    with pytest.raises(InvalidExamples, match="Line 2 is not JSON"):
        parse_json_lines(['{"instruction": "a", "output": "b"}', "{"])


def test_empty_lines_are_skipped():
    assert len(parse_json_lines(['{"instruction": "a", "output": "b"}', ""] * 5)) == 5


@pytest.mark.parametrize(("share", "size"), [(0.25, 5), (0.0, 1), (0.9, 10)])
def test_holdout_has_at_least_one_and_at_most_half_of_the_examples(share: float, size: int):
    examples = [Example(str(number), "yes") for number in range(20)]
    training, holdout = split_holdout(examples, share)
    assert (training + holdout, len(holdout)) == (examples, size)
