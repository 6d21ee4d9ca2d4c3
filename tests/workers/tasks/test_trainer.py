from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from catalog.tasks.training_config import TrainingConfig
from tests.support.pico import BASE_ID
from workers.finetunes.reading import read_finetune
from workers.process.cancellation import Cancelled, cancel_scope
from workers.tasks.trainer import Trainer

CONFIG = TrainingConfig(learning_rate=5e-2, max_tokens=300)
STEPS = 24


@pytest.fixture(scope="module")
def trainer(encoder):
    return Trainer(encoder.base, CONFIG)


def vector(encoder, folder):
    [encoding] = encoder.encode([read_finetune(folder)])
    return encoding.vectors["delta_activations"]


def test_loss_falls_during_training(trainer, examples, tmp_path):
    losses = []
    trainer.train(examples, STEPS, 0, tmp_path, on_step=lambda step, loss: losses.append(loss))
    assert len(losses) == STEPS
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1


def test_saved_adapter_can_be_measured(trainer, encoder, examples, tmp_path):
    trainer.train(examples, STEPS, 0, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (8, 16, BASE_ID)
    assert np.linalg.norm(vector(encoder, tmp_path)) > encoder.noise_floor()["delta_activations"]


def test_same_examples_and_seed_give_the_same_adapter(trainer, encoder, examples, tmp_path):
    first, again, other = (
        vector(encoder, trainer.train(examples, STEPS, seed, tmp_path / name))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_training_changes_neither_the_copy_nor_the_resident_base(encoder, examples, tmp_path):
    trainer = Trainer(encoder.base, CONFIG)
    before = {name: tensor.clone() for name, tensor in trainer._model.state_dict().items()}
    base_vectors = encoder.measure_base()["delta_activations"]
    trainer.train(examples, STEPS, 0, tmp_path)
    after = trainer._model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert np.array_equal(encoder.measure_base()["delta_activations"], base_vectors)


def test_cancellation_stops_between_two_steps(trainer, examples, tmp_path):
    steps = []
    with cancel_scope(lambda: len(steps) == 3), pytest.raises(Cancelled):
        trainer.train(examples, STEPS, 0, tmp_path, on_step=lambda step, loss: steps.append(step))
    assert steps == [1, 2, 3]
    assert not list(tmp_path.iterdir())
    trainer.train(examples, STEPS, 0, tmp_path)  # the trainer can still be used
