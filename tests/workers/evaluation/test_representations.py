"""Each representation on six pico adapters of two ranks, against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from catalog.errors import UnknownFeature, UnsupportedAdapter
from catalog.spaces.probes import ProbeSet
from tests.support import pico
from tests.support.evaluation import PROBES
from workers.encoding.encoder import Encoder
from workers.encoding.guard import BaseGuard
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.pool import Pool
from workers.evaluation.representations import REPRESENTATIONS, Dense, Made, Masks, Setting, find_representation
from workers.evaluation.sentence_encoder import SentenceEncoder

SHARE = 0.1


@pytest.fixture(scope="module")
def setting(resident: ResidentBase) -> Setting:
    return Setting(resident, BaseGuard(resident.model), ProbeSet("two", PROBES), 4, SHARE, 3)


def make(name: str, pool: Pool, setting: Setting) -> Made:
    return find_representation(name).make(pool, setting, lambda *_: None)


def test_there_are_eight_and_an_unknown_one_is_told():
    assert list(REPRESENTATIONS) == [
        "delta_activations",
        "delta_weighted_activations",
        "delta_layers",
        "delta_logits",
        "delta_meaning",
        "flattened_weights",
        "salient_mask",
        "output_sentences",
    ]
    with pytest.raises(UnknownFeature, match="salient_mask"):
        find_representation("colour")


@pytest.mark.usefixtures("four_continuations")
@pytest.mark.parametrize("name", list(REPRESENTATIONS)[:5])
def test_features_are_the_encoders(name: str, pool: Pool, setting: Setting):
    made = make(name, pool, setting)
    encoder = Encoder(setting.base, setting.probes, [name])
    [expected] = encoder.encode(list(pool.finetunes())[4:5])
    np.testing.assert_allclose(made.vectors.arrays()["vectors"][4], expected.vectors[name], rtol=1e-4, atol=1e-5)
    assert made.contract["space"] == encoder.space(name).as_dict()


def test_flattened_weights_are_a_and_b_in_order_filled_up_with_zeros(pool: Pool, setting: Setting):
    made = make("flattened_weights", pool, setting)
    rows = made.vectors.arrays()["vectors"]
    largest = load_file(pool.folders[1] / "adapter_model.safetensors")
    for row, folder in zip(rows, pool.folders, strict=True):
        tensors, parts = load_file(folder / "adapter_model.safetensors"), []
        for key, shape in sorted((key, tensor.shape) for key, tensor in largest.items()):
            padded = torch.zeros(shape)
            padded[tuple(slice(0, size) for size in tensors[key].shape)] = tensors[key]
            parts.append(padded.flatten())
        assert torch.equal(torch.from_numpy(row), torch.cat(parts))
    assert (made.vectors.dimension, made.vectors.nbytes) == (rows.shape[1], 4 * rows.shape[1])


def test_flattened_weights_of_adapters_on_other_modules_have_the_coordinates_of_both(
    folder: Path, setting: Setting, tmp_path: Path
):
    other = pico.make_adapter(tmp_path / "other", seed=9)
    tensors = load_file(other / "adapter_model.safetensors")
    moved = {key.replace("v_proj", "o_proj"): tensor for key, tensor in tensors.items()}
    save_file(moved, other / "adapter_model.safetensors")
    pool = Pool(("m1", "other"), ("red", "blue"), (folder / "m1", other))
    gram = make("flattened_weights", pool, setting).vectors.gram()
    mine = load_file(folder / "m1" / "adapter_model.safetensors")
    shared = [key for key in mine if key in tensors and "q_proj" in key]
    assert gram[0, 1] == pytest.approx(sum(float((mine[key] * tensors[key]).sum()) for key in shared), rel=1e-5)


def test_a_full_fine_tune_has_no_adapter_weights(base: Path, folder: Path, setting: Setting):
    with pytest.raises(UnsupportedAdapter, match="full fine-tune"):
        make("flattened_weights", Pool(("m1", "full"), ("red", "blue"), (folder / "m1", base)), setting)


def test_salient_masks_mark_the_largest_changes_of_the_merged_weights(pool: Pool, setting: Setting):
    vectors = make("salient_mask", pool, setting).vectors
    assert isinstance(vectors, Masks)
    start, starts = 0, {}
    for name, parameter in setting.base.model.named_parameters():
        starts[name] = start
        start += parameter.numel()
    masks = np.zeros((len(pool), start))
    for mask, folder in zip(masks, pool.folders, strict=True):
        tensors = load_file(folder / "adapter_model.safetensors")
        changes = np.zeros(start)
        for key, a in tensors.items():
            if "lora_A" in key:
                change = (tensors[key.replace("lora_A", "lora_B")] @ a).flatten().numpy()
                place = starts[key.removeprefix("base_model.model.model.").replace("lora_A.weight", "weight")]
                changes[place : place + len(change)] = np.abs(change)
        mask[np.argsort(-changes)[: round(SHARE * np.count_nonzero(changes))]] = 1
    np.testing.assert_array_equal(vectors.gram(), masks @ masks.T)
    assert vectors.dimension == start
    assert vectors.nbytes == 4 * masks.sum() / len(pool)


def test_sentences_are_the_mean_of_the_embedded_answers(pool: Pool, setting: Setting):
    made = make("output_sentences", pool, setting)
    rows = made.vectors.arrays()["vectors"]
    assert isinstance(made.vectors, Dense)
    assert rows.shape == (6, 384)
    from workers.evaluation.generation import answers

    [texts] = answers(list(pool.finetunes())[5:], setting.base, setting.guard, PROBES, 3)
    np.testing.assert_allclose(rows[5], SentenceEncoder().encode(texts).mean(dim=0).numpy(), atol=1e-5)
