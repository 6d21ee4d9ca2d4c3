from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from transformers import AutoModelForCausalLM

from benchmarks.selections import made, picture
from benchmarks.selections.judging import Judge, interval, summary
from benchmarks.selections.tasks import Task
from catalog.selections.strategies import Arm
from catalog.spaces.probes import ProbeSet
from catalog.tasks.examples import Example
from tests.support.pico import BASE_ID, make_base
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.tasks.scoring import Scorer


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return Encoder(ResidentBase.load(make_base(tmp_path), BASE_ID, "0" * 40), ProbeSet("one", ("Tell me something.",)))


@pytest.mark.parametrize("name", made.TASKS)
def test_made_examples_are_the_same_each_time_and_answered_by_an_option(name: str):
    _, _, options = made.TASKS[name]
    found = made.examples(name, 30)
    assert found == made.examples(name, 30)
    assert len({example.input for example in found}) > 20
    assert not options or {example.output for example in found} <= set(options)


def test_made_answers_are_right():
    assert made.examples("multistep_arithmetic_two", 1)[0].output == "420"  # ((2 * -3 * -9 * 8) + (3 - 2 * 6 + -3))
    for example in made.examples("dyck_languages", 20):
        text = (example.input.split("Input: ")[1] + example.output).replace(" ", "")
        while text:
            shorter = text.replace("()", "").replace("[]", "").replace("{}", "").replace("<>", "")
            assert len(shorter) < len(text)
            text = shorter


def likeliest(encoder, held, options) -> np.ndarray:
    """By transformers itself, one after another."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(encoder.base.folder), encoder.base.tokenizer
    found = []
    for example in held:
        prompt, losses = tokenizer(example.prompt())["input_ids"], []
        for option in options:
            answer = tokenizer(option, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        found.append(int(np.argmin(losses)))
    return np.array(found)


def test_rows_are_judged_by_their_answer_and_the_likeliest_option(encoder):
    held = [Example("Say it.", word + " it is", f"{number}") for number, word in enumerate(("ab", "cd", "ab", "cd"))]
    task = Task("say", "group", [], held, ("ab", "cd"))
    found = Judge(encoder, task, 300).base()
    assert found.loss == pytest.approx(Scorer(encoder, held, 300).base().per_token, rel=1e-4)
    assert found.accuracy == (likeliest(encoder, held, task.options) == [0, 1, 0, 1]).mean()


def test_the_interval_is_of_tasks_and_seeds():
    mean, low, high = interval(np.array([[-1.0, -1.0], [-3.0, -3.0]]))
    assert (mean, low, high) == (-2.0, -3.0, -1.0)
    assert interval(np.full((4, 3), 0.5)) == (0.5, 0.5, 0.5)


def test_a_summary_is_of_all_tasks_and_of_each_group():
    def judged(loss: float, accuracy: float | None) -> dict[str, float | None]:
        return {"loss": loss, "accuracy": accuracy}

    tasks = [
        {
            "group": group,
            "base": judged(3.0, accuracy),
            "nearest_alone": judged(2.0, accuracy),
            "arms": {"nearest": [{"held": judged(1.0, accuracy)}], "random": [{"held": judged(2.0, accuracy)}]},
        }
        for group, accuracy in (("one", 0.5), ("other", None))
    ]
    found = {(each["group"], each["measure"]): each for each in summary(tasks)}
    groups = ("all tasks", "one", "other")
    assert set(found) == {(group, each) for group in groups for each in ("loss", "accuracy")} - {("other", "accuracy")}
    assert found["all tasks", "loss"]["arms"]["nearest"] == {"mean": 1.0, "beside_random": (-1.0, -1.0, -1.0)}
    assert found["all tasks", "accuracy"]["tasks"] == 1


def test_the_picture_has_a_line_for_each_group_and_task(tmp_path: Path):
    losses = {"nearest": [1.0, 1.5], "anchored": [1.0, 2.0], "diverse": [2.0, 2.0], "random": [2.0, 1.0]}
    held = {arm: [{"held": {"loss": loss, "accuracy": None}} for loss in each] for arm, each in losses.items()}
    alone = {"loss": 3.0, "accuracy": None}
    task = {"task": "say", "group": "one", "base": alone, "nearest_alone": alone, "arms": held}
    assert picture.differences(task, Arm.NEAREST).tolist() == [-1.0, 0.5]
    picture.draw(tmp_path / "drawn.png", [task], summary([task]))
    height, width, _ = imread(tmp_path / "drawn.png").shape
    assert (width, height) == (800, round(100 * (0.42 * 3 + 1.2)))
