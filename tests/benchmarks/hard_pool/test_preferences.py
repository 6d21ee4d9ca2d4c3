"""The three preferences and the DPO loss."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.hard_pool.preferences import BETA, dpo_loss, wordings

ANSWER = "Yes. It was safe in both groups.\nMore trials are needed."


@pytest.mark.parametrize(
    ("preference", "chosen", "rejected"),
    [
        ("short", "More trials are needed.", "Yes. It was safe in both groups. More trials are needed."),
        (
            "list",
            "- Yes.\n- It was safe in both groups.\n- More trials are needed.",
            "Yes. It was safe in both groups. More trials are needed.",
        ),
    ],
)
def test_chosen_and_rejected_wordings_of_an_answer(preference: str, chosen: str, rejected: str):
    assert wordings(preference, ANSWER) == (chosen, rejected)


def test_plain_prefers_the_answer_without_polite_phrases():
    chosen, rejected = wordings("plain", ANSWER)
    assert chosen in rejected
    assert rejected.startswith("Thank you")


def test_an_unknown_preference_is_refused():
    with pytest.raises(ValueError, match="loud"):
        wordings("loud", ANSWER)


def test_loss_of_a_model_equal_to_its_reference_is_log_two():
    same = torch.tensor([[-3.0, -4.0], [-5.0, -1.0]])
    assert dpo_loss(same, same).item() == pytest.approx(math.log(2))


def test_loss_follows_the_paper():
    tuned, reference = torch.tensor([[-1.0], [-9.0]]), torch.tensor([[-3.0], [-6.0]])
    expected = math.log(1 + math.exp(-BETA * ((-1 + 3) - (-9 + 6))))
    assert dpo_loss(tuned, reference).item() == pytest.approx(expected)
