"""Plain LoRA, several adapters in one forward."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from catalog.errors import NonFiniteVector, ShapeMismatch
from catalog.spaces.probes import ProbeSet
from tests.support import pico
from tests.support.pico_adapters import TASK
from tests.support.pico_models import PROBES, load_with, make_adapter, make_base, reference, relative_error
from workers.encoding import lora_path
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.guard import checksum
from workers.encoding.lora_path import applied
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan
from workers.encoding.trace import Trace, run
from workers.finetunes.reading import FineTune, read_finetune

FEATURE = "delta_activations"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture(scope="module")
def encoder(base: Path) -> Encoder:
    return Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES)


@pytest.fixture(scope="module")
def unlike(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Adapters of other ranks, targets, layers and scales."""
    folder = tmp_path_factory.mktemp("unlike")
    configs = [
        peft.LoraConfig(r=2, target_modules=["q_proj"], task_type=TASK),
        peft.LoraConfig(r=8, lora_alpha=32, target_modules=["v_proj", "down_proj"], task_type=TASK),
        peft.LoraConfig(r=4, target_modules=["embed_tokens", "k_proj"], use_rslora=True, task_type=TASK),
        peft.LoraConfig(r=3, target_modules=["q_proj", "v_proj"], layers_to_transform=[1], task_type=TASK),
        peft.LoraConfig(
            r=4, target_modules="all-linear", rank_pattern={"o_proj": 6}, alpha_pattern={"up_proj": 1}, task_type=TASK
        ),
    ]
    # PEFT would put the embedding itself beside A and B, and that would be more than a plain LoRA
    saving = {"save_embedding_layers": False}
    return [make_adapter(base, folder / str(n), config, seed=n, **saving) for n, config in enumerate(configs)]


def vectors(encoder: Encoder, finetunes: list[FineTune]) -> list[np.ndarray]:
    results = encoder.encode(finetunes)
    assert [result for result in results if not isinstance(result, Encoding)] == []
    return [result.vectors[FEATURE] for result in results if isinstance(result, Encoding)]


def with_tensors(finetune: FineTune, change: float) -> FineTune:
    """The same adapter with its first B filled with a number."""
    name, module = next(iter(finetune.modules.items()))
    filled = replace(module, b=torch.full_like(module.b, change))
    return replace(finetune, modules={**finetune.modules, name: filled})


def test_adapters_of_unlike_shapes_share_a_forward(encoder: Encoder, base: Path, unlike: list[Path]):
    finetunes = [read_finetune(folder) for folder in unlike]
    assert {finetune.path for finetune in finetunes} == {"lora"}
    found = vectors(encoder, finetunes)
    for folder, vector in zip(unlike, found, strict=True):
        assert relative_error(vector, reference(base, load_with(base, folder))) <= 1e-4


def test_an_adapter_gets_the_same_vector_alone_and_in_company(encoder: Encoder, unlike: list[Path]):
    finetunes = [read_finetune(folder) for folder in unlike]
    together = vectors(encoder, finetunes)
    for finetune, vector in zip(finetunes, together, strict=True):
        assert relative_error(vector, vectors(encoder, [finetune])[0]) <= 1e-5


def test_an_adapter_leaves_nothing_behind_for_the_next(encoder: Encoder, unlike: list[Path]):
    """The published procedure's trap: its shared base keeps what an earlier adapter targeted and the next does not."""
    narrow, wide = read_finetune(unlike[0]), read_finetune(unlike[4])
    before = vectors(encoder, [narrow])[0]
    vectors(encoder, [wide])
    assert np.array_equal(vectors(encoder, [narrow])[0], before)


def test_the_base_stays_what_it_was(encoder: Encoder, unlike: list[Path]):
    before = checksum(encoder.base.model)
    vectors(encoder, [read_finetune(folder) for folder in unlike])
    assert checksum(encoder.base.model) == before


def test_results_keep_the_order_of_what_was_given(encoder: Encoder, unlike: list[Path]):
    finetunes = [read_finetune(folder) for folder in unlike]
    forward, backward = vectors(encoder, finetunes), vectors(encoder, finetunes[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        assert relative_error(one, other) <= 1e-5


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 5), (10**9, [5]), (200, [2, 3])])
def test_forwards_are_shared_up_to_a_number_of_tokens(
    encoder: Encoder, unlike: list[Path], monkeypatch: pytest.MonkeyPatch, limit: int, sizes: list[int]
):
    expected = vectors(encoder, [read_finetune(folder) for folder in unlike])
    monkeypatch.setattr(lora_path, "CPU_TOKENS", limit)
    models: list[int] = []

    def noted(model: PreTrainedModel, plan: TokenPlan, count: int) -> list[Trace]:
        models.append(count)
        return run(model, plan, count)

    monkeypatch.setattr(lora_path, "run", noted)
    found = vectors(encoder, [read_finetune(folder) for folder in unlike])
    assert models == sizes
    assert all(relative_error(one, other) <= 1e-5 for one, other in zip(found, expected, strict=True))


def test_a_large_probe_set_is_run_in_parts(base: Path, unlike: list[Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.encoding.encoder.PART_TOKENS", 20)
    parted = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES, ["delta_activations", "delta_meaning"])
    monkeypatch.undo()
    whole = Encoder(parted.base, PROBES, ["delta_activations", "delta_meaning"])
    finetune = read_finetune(unlike[4])
    (one,), (other,) = parted.encode([finetune]), whole.encode([finetune])
    assert isinstance(one, Encoding)
    assert isinstance(other, Encoding)
    for feature in one.vectors:
        assert relative_error(one.vectors[feature], other.vectors[feature]) <= 1e-5


def test_one_that_does_not_fit_spoils_no_other(encoder: Encoder, unlike: list[Path], tmp_path: Path):
    stranger = read_finetune(pico.make_adapter(tmp_path / "stranger", hidden=64))
    finetunes = [read_finetune(unlike[0]), stranger, read_finetune(unlike[1])]
    first, second, third = encoder.encode(finetunes)
    assert isinstance(second, ShapeMismatch)
    assert isinstance(first, Encoding)
    assert isinstance(third, Encoding)
    assert relative_error(first.vectors[FEATURE], vectors(encoder, finetunes[:1])[0]) <= 1e-5
    assert relative_error(third.vectors[FEATURE], vectors(encoder, finetunes[2:])[0]) <= 1e-5


def test_one_that_overflows_spoils_no_other(encoder: Encoder, unlike: list[Path]):
    overflowing = with_tensors(read_finetune(unlike[1]), 3e38)
    alone = vectors(encoder, [read_finetune(unlike[0])])[0]
    first, second = encoder.encode([overflowing, read_finetune(unlike[0])])
    assert isinstance(first, NonFiniteVector)
    assert isinstance(second, Encoding)
    assert relative_error(second.vectors[FEATURE], alone) <= 1e-5


def test_a_module_that_the_base_has_not_is_named(encoder: Encoder, tmp_path: Path):
    folder = pico.make_adapter(tmp_path / "deep")
    weights = folder / "adapter_model.safetensors"
    tensors = {name.replace("layers.1.", "layers.7."): tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    (error,) = encoder.encode([read_finetune(folder)])
    assert isinstance(error, ShapeMismatch)
    assert "layers.7.self_attn" in str(error)


def test_hooks_come_off_when_a_forward_fails(encoder: Encoder, unlike: list[Path]):
    before = checksum(encoder.base.model)
    modules = {"layers.0.mlp.down_proj": next(iter(read_finetune(unlike[0]).modules.values()))}  # of a wrong width
    with pytest.raises(RuntimeError), applied(encoder.base.model, [modules]):
        run(encoder.base.model, encoder._plan, 1)
    assert checksum(encoder.base.model) == before


def test_encoding_many_keeps_no_tensor_alive(encoder: Encoder, unlike: list[Path]):
    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    vectors(encoder, [read_finetune(unlike[0])])
    before = alive()
    for _ in range(20):
        vectors(encoder, [read_finetune(folder) for folder in unlike])
    assert alive() == before


def test_one_probe_is_enough(base: Path, unlike: list[Path]):
    single = Encoder(ResidentBase.load(base, "pico/base", "0"), ProbeSet("one", ("Hello.",)))
    assert vectors(single, [read_finetune(unlike[0])])[0].shape == (32,)
