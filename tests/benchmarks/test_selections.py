from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from transformers import AutoModelForCausalLM

from benchmarks.selections import generated, picture
from benchmarks.selections.judging import HoldoutScorer, difference_interval, summarize
from benchmarks.selections.strategies import strategies
from benchmarks.selections.tasks import Task
from catalog.selections.strategies import Candidates
from catalog.spaces.probes import ProbeSet
from catalog.tasks.examples import Example
from tests.support.pico import BASE_ID, make_base
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.tasks.scoring import Scorer


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return Encoder(ResidentBase.load(make_base(tmp_path), BASE_ID, "0" * 40), ProbeSet("one", ("Tell me something.",)))


@pytest.mark.parametrize("name", generated.TASKS)
def test_generated_examples_are_reproducible_and_answered_by_an_option(name: str):
    _, _, options = generated.TASKS[name]
    examples = generated.examples(name, 30)
    assert examples == generated.examples(name, 30)
    assert len({example.input for example in examples}) > 20
    assert not options or {example.output for example in examples} <= set(options)


def test_generated_answers_are_correct():
    assert (
        generated.examples("multistep_arithmetic_two", 1)[0].output == "420"
    )  # ((2 * -3 * -9 * 8) + (3 - 2 * 6 + -3))
    for example in generated.examples("dyck_languages", 20):
        text = (example.input.split("Input: ")[1] + example.output).replace(" ", "")
        while text:
            shorter = text.replace("()", "").replace("[]", "").replace("{}", "").replace("<>", "")
            assert len(shorter) < len(text)
            text = shorter


def likeliest(encoder, holdout, options) -> np.ndarray:
    """The likeliest option of each example, computed with transformers."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(encoder.base.folder), encoder.base.tokenizer
    likeliest_options = []
    for example in holdout:
        prompt, losses = tokenizer(example.prompt())["input_ids"], []
        for option in options:
            answer = tokenizer(option, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        likeliest_options.append(int(np.argmin(losses)))
    return np.array(likeliest_options)


def test_rows_are_scored_by_their_answer_and_the_likeliest_option(encoder):
    holdout = [Example("Say it.", word + " it is", f"{number}") for number, word in enumerate(("ab", "cd", "ab", "cd"))]
    task = Task("say", "group", [], holdout, ("ab", "cd"))
    score = HoldoutScorer(encoder, task, 300).score_base()
    assert score.loss == pytest.approx(Scorer(encoder, holdout, 300).base().per_token, rel=1e-4)
    assert score.accuracy == (likeliest(encoder, holdout, task.options) == [0, 1, 0, 1]).mean()


# the first two alike, the third in another direction, the fourth far from the task
VECTORS = np.array([[1, 0, 0], [0.999, 0.0447, 0], [0.3, 0, 0.954], [0, 1, 0]], np.float32)
CANDIDATES = Candidates(np.array([7, 3, 9, 1]), np.array([0.9, 0.89, 0.7, 0.1], np.float32), VECTORS)


def test_anchored_selects_the_nearest_and_random_others():
    draws = {tuple(strategies(seed)["anchored"](CANDIDATES, 2).tolist()) for seed in range(20)}
    assert draws == {(7, 1), (7, 3), (7, 9)}


def test_random_does_not_depend_on_the_order_of_candidates():
    reversed_candidates = Candidates(CANDIDATES.ids[::-1], CANDIDATES.cosines, VECTORS[::-1])
    draws = [strategies(seed)["random"](CANDIDATES, 2).tolist() for seed in range(20)]
    assert draws == [strategies(seed)["random"](reversed_candidates, 2).tolist() for seed in range(20)]
    assert len({tuple(draw) for draw in draws}) > 5
    assert all(len(set(draw)) == 2 for draw in draws)


@pytest.mark.parametrize("name", ["nearest", "anchored", "diverse", "random"])
def test_all_candidates_are_selected_if_there_are_too_few(name: str):
    assert sorted(strategies(0)[name](CANDIDATES, 9).tolist()) == [1, 3, 7, 9]


def test_interval_covers_tasks_and_seeds():
    mean, low, high = difference_interval(np.array([[-1.0, -1.0], [-3.0, -3.0]]))
    assert (mean, low, high) == (-2.0, -3.0, -1.0)
    assert difference_interval(np.full((4, 3), 0.5)) == (0.5, 0.5, 0.5)


def test_summary_covers_all_tasks_and_each_group():
    def score(loss: float, accuracy: float | None) -> dict[str, float | None]:
        return {"loss": loss, "accuracy": accuracy}

    tasks = [
        {
            "group": group,
            "base": score(3.0, accuracy),
            "nearest_alone": score(2.0, accuracy),
            "strategies": {
                "nearest": [{"holdout": score(1.0, accuracy)}],
                "random": [{"holdout": score(2.0, accuracy)}],
            },
        }
        for group, accuracy in (("one", 0.5), ("other", None))
    ]
    rows = {(row["group"], row["measure"]): row for row in summarize(tasks)}
    groups = ("all tasks", "one", "other")
    measures = ("loss", "accuracy")
    assert set(rows) == {(group, measure) for group in groups for measure in measures} - {("other", "accuracy")}
    assert rows["all tasks", "loss"]["strategies"]["nearest"] == {"mean": 1.0, "delta_vs_random": (-1.0, -1.0, -1.0)}
    assert rows["all tasks", "accuracy"]["tasks"] == 1


def test_plot_has_one_line_per_group_and_task(tmp_path: Path):
    losses = {"nearest": [1.0, 1.5], "anchored": [1.0, 2.0], "diverse": [2.0, 2.0], "random": [2.0, 1.0]}
    runs = {
        name: [{"holdout": {"loss": loss, "accuracy": None}} for loss in by_seed] for name, by_seed in losses.items()
    }
    alone = {"loss": 3.0, "accuracy": None}
    task = {"task": "say", "group": "one", "base": alone, "nearest_alone": alone, "strategies": runs}
    assert picture.differences(task, "nearest").tolist() == [-1.0, 0.5]
    picture.draw(tmp_path / "drawn.png", [task], summarize([task]))
    height, width, _ = imread(tmp_path / "drawn.png").shape
    assert (width, height) == (800, round(100 * (0.42 * 3 + 1.2)))
