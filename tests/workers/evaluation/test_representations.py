"""Each representation matches its definition on six pico adapters of two ranks."""

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
from workers.evaluation.representations import (
    REPRESENTATIONS,
    Dense,
    EvaluationContext,
    Masks,
    PoolVectors,
    find_representation,
)
from workers.evaluation.sentence_encoder import SentenceEncoder

SHARE = 0.1


@pytest.fixture(scope="module")
def context(resident: ResidentBase) -> EvaluationContext:
    return EvaluationContext(resident, BaseGuard(resident.model), ProbeSet("two", PROBES), 4, SHARE, 3)


def compute(name: str, pool: Pool, context: EvaluationContext) -> PoolVectors:
    return find_representation(name).compute(pool, context, lambda *_: None)


def test_there_are_eight_representations_and_an_unknown_one_is_refused():
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
        find_representation("color")


@pytest.mark.usefixtures("four_continuations")
@pytest.mark.parametrize("name", list(REPRESENTATIONS)[:5])
def test_features_match_the_encoder(name: str, pool: Pool, context: EvaluationContext):
    computed = compute(name, pool, context)
    encoder = Encoder(context.base, context.probes, [name])
    [expected] = encoder.encode(list(pool.finetunes())[4:5])
    np.testing.assert_allclose(computed.vectors.arrays()["vectors"][4], expected.vectors[name], rtol=1e-4, atol=1e-5)
    assert computed.contract["space"] == encoder.space(name).as_dict()


def test_flattened_weights_are_concatenated_tensors_padded_with_zeros(pool: Pool, context: EvaluationContext):
    computed = compute("flattened_weights", pool, context)
    rows = computed.vectors.arrays()["vectors"]
    largest = load_file(pool.folders[1] / "adapter_model.safetensors")
    for row, folder in zip(rows, pool.folders, strict=True):
        tensors, parts = load_file(folder / "adapter_model.safetensors"), []
        for key, shape in sorted((key, tensor.shape) for key, tensor in largest.items()):
            padded = torch.zeros(shape)
            padded[tuple(slice(0, size) for size in tensors[key].shape)] = tensors[key]
            parts.append(padded.flatten())
        assert torch.equal(torch.from_numpy(row), torch.cat(parts))
    assert (computed.vectors.dimension, computed.vectors.nbytes) == (rows.shape[1], 4 * rows.shape[1])


def test_flattened_weights_cover_the_modules_of_all_adapters(folder: Path, context: EvaluationContext, tmp_path: Path):
    other = pico.make_adapter(tmp_path / "other", seed=9)
    tensors = load_file(other / "adapter_model.safetensors")
    renamed = {key.replace("v_proj", "o_proj"): tensor for key, tensor in tensors.items()}
    save_file(renamed, other / "adapter_model.safetensors")
    pool = Pool(("m1", "other"), ("red", "blue"), (folder / "m1", other))
    gram = compute("flattened_weights", pool, context).vectors.gram()
    adapter = load_file(folder / "m1" / "adapter_model.safetensors")
    shared = [key for key in adapter if key in tensors and "q_proj" in key]
    assert gram[0, 1] == pytest.approx(sum(float((adapter[key] * tensors[key]).sum()) for key in shared), rel=1e-5)


def test_flattened_weights_refuse_a_full_fine_tune(base: Path, folder: Path, context: EvaluationContext):
    with pytest.raises(UnsupportedAdapter, match="full fine-tune"):
        compute("flattened_weights", Pool(("m1", "full"), ("red", "blue"), (folder / "m1", base)), context)


def test_salient_mask_marks_the_largest_changes_of_the_merged_weights(pool: Pool, context: EvaluationContext):
    vectors = compute("salient_mask", pool, context).vectors
    assert isinstance(vectors, Masks)
    start, starts = 0, {}
    for name, parameter in context.base.model.named_parameters():
        starts[name] = start
        start += parameter.numel()
    masks = np.zeros((len(pool), start))
    for mask, folder in zip(masks, pool.folders, strict=True):
        tensors = load_file(folder / "adapter_model.safetensors")
        changes = np.zeros(start)
        for key, a in tensors.items():
            if "lora_A" in key:
                change = (tensors[key.replace("lora_A", "lora_B")] @ a).flatten().numpy()
                index = starts[key.removeprefix("base_model.model.model.").replace("lora_A.weight", "weight")]
                changes[index : index + len(change)] = np.abs(change)
        mask[np.argsort(-changes)[: round(SHARE * np.count_nonzero(changes))]] = 1
    np.testing.assert_array_equal(vectors.gram(), masks @ masks.T)
    assert vectors.dimension == start
    assert vectors.nbytes == 4 * masks.sum() / len(pool)


def test_output_sentences_are_the_mean_of_the_embedded_answers(pool: Pool, context: EvaluationContext):
    computed = compute("output_sentences", pool, context)
    rows = computed.vectors.arrays()["vectors"]
    assert isinstance(computed.vectors, Dense)
    assert rows.shape == (6, 384)
    from workers.evaluation.generation import generate_answers

    [texts] = generate_answers(list(pool.finetunes())[5:], context.base, context.guard, PROBES, 3)
    np.testing.assert_allclose(rows[5], SentenceEncoder().encode(texts).mean(dim=0).numpy(), atol=1e-5)
