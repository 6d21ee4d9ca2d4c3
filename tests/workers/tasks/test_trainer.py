from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from catalog.tasks.training_config import Recipe
from tests.support.pico import BASE_ID
from workers.finetunes.reading import read_finetune
from workers.process.cancellation import Stopped, heeding
from workers.tasks.trainer import Trainer

RECIPE = Recipe(rate=5e-2, tokens=300)
STEPS = 24


@pytest.fixture(scope="module")
def trainer(encoder):
    return Trainer(encoder.base, RECIPE)


def vector(encoder, folder):
    [encoding] = encoder.encode([read_finetune(folder)])
    return encoding.vectors["delta_activations"]


def test_it_learns_its_examples(trainer, examples, tmp_path):
    losses = []
    trainer.train(examples, STEPS, 0, tmp_path, on_step=lambda step, loss: losses.append(loss))
    assert len(losses) == STEPS
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1


def test_what_it_leaves_is_an_adapter_like_any_other(trainer, encoder, examples, tmp_path):
    trainer.train(examples, STEPS, 0, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (8, 16, BASE_ID)
    assert np.linalg.norm(vector(encoder, tmp_path)) > encoder.noise_floor()["delta_activations"]


def test_examples_and_seed_decide_the_adapter(trainer, encoder, examples, tmp_path):
    first, again, other = (
        vector(encoder, trainer.train(examples, STEPS, seed, tmp_path / name))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_copy_that_is_trained_and_the_resident_base_stay_what_they_are(encoder, examples, tmp_path):
    trainer = Trainer(encoder.base, RECIPE)
    before = {name: tensor.clone() for name, tensor in trainer._model.state_dict().items()}
    table = encoder.measure_base()["delta_activations"]
    trainer.train(examples, STEPS, 0, tmp_path)
    after = trainer._model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert np.array_equal(encoder.measure_base()["delta_activations"], table)


def test_it_ends_between_two_steps_once_it_is_given_up(trainer, examples, tmp_path):
    done = []
    with heeding(lambda: len(done) == 3), pytest.raises(Stopped):
        trainer.train(examples, STEPS, 0, tmp_path, on_step=lambda step, loss: done.append(step))
    assert done == [1, 2, 3]
    assert not list(tmp_path.iterdir())
    trainer.train(examples, STEPS, 0, tmp_path)  # and can be asked again
