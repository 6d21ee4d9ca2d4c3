from __future__ import annotations

import pytest

from catalog.errors import InvalidExamples
from catalog.tasks.examples import MAX_CHARACTERS, Example, hold_back, read_examples, read_rows

ROW = {"instruction": "Add.", "input": "1 + 1", "output": "2"}


def test_rows_with_and_without_an_input():
    assert read_examples([ROW] * 5)[0] == Example("Add.", "2", "1 + 1")
    assert read_examples([{"instruction": "Say hi.", "output": "hi"}] * 5)[0] == Example("Say hi.", "hi")


def test_a_chat_is_its_last_question_with_what_came_before_as_input():
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "One and one?"},
        {"role": "assistant", "content": "Two"},
    ]
    [first, *_] = read_examples([{"messages": messages}] * 5)
    assert first == Example("One and one?", "Two", "system: Be short.\nuser: Hello\nassistant: Hi", chat=True)


def test_the_prompt_is_alpacas():
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
def test_too_few_and_too_many_are_refused(count):
    with pytest.raises(InvalidExamples, match=f"these are {count}"):
        read_examples([ROW] * count)


@pytest.mark.parametrize(
    "wrong",
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
def test_a_wrong_row_is_named(wrong):
    with pytest.raises(InvalidExamples, match="Example 4"):
        read_examples([ROW, ROW, ROW, wrong, ROW])


def test_lines_that_are_no_json_are_named():
    with pytest.raises(InvalidExamples, match="Line 2 is not JSON"):
        read_rows(['{"instruction": "a", "output": "b"}', "{"])


def test_empty_lines_are_passed_over():
    assert len(read_rows(['{"instruction": "a", "output": "b"}', ""] * 5)) == 5


@pytest.mark.parametrize(("share", "held"), [(0.25, 5), (0.0, 1), (0.9, 10)])
def test_what_is_held_back_is_at_least_one_and_at_most_half(share, held):
    examples = [Example(str(number), "yes") for number in range(20)]
    kept, back = hold_back(examples, share)
    assert (kept + back, len(back)) == (examples, held)
