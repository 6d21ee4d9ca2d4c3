"""Plain LoRA, several adapters in one forward pass."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

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
from workers.encoding.trace import Trace
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
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Adapters with different ranks, targets, layers and scales."""
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
    # PEFT would save the embedding next to A and B, which is more than plain LoRA
    saving = {"save_embedding_layers": False}
    return [make_adapter(base, folder / str(n), config, seed=n, **saving) for n, config in enumerate(configs)]


def vectors(encoder: Encoder, finetunes: list[FineTune]) -> list[np.ndarray]:
    results = encoder.encode(finetunes)
    assert [result for result in results if not isinstance(result, Encoding)] == []
    return [result.vectors[FEATURE] for result in results if isinstance(result, Encoding)]


def with_tensors(finetune: FineTune, change: float) -> FineTune:
    """The same adapter with its first B filled with a constant."""
    name, module = next(iter(finetune.modules.items()))
    filled = replace(module, b=torch.full_like(module.b, change))
    return replace(finetune, modules={**finetune.modules, name: filled})


def test_adapters_of_different_shapes_share_a_forward_pass(encoder: Encoder, base: Path, adapters: list[Path]):
    finetunes = [read_finetune(folder) for folder in adapters]
    assert {finetune.path for finetune in finetunes} == {"lora"}
    encoded = vectors(encoder, finetunes)
    for folder, vector in zip(adapters, encoded, strict=True):
        assert relative_error(vector, reference(base, load_with(base, folder))) <= 1e-4


def test_adapter_gets_the_same_vector_alone_and_in_a_batch(encoder: Encoder, adapters: list[Path]):
    finetunes = [read_finetune(folder) for folder in adapters]
    together = vectors(encoder, finetunes)
    for finetune, vector in zip(finetunes, together, strict=True):
        assert relative_error(vector, vectors(encoder, [finetune])[0]) <= 1e-5


def test_adapter_does_not_affect_the_next(encoder: Encoder, adapters: list[Path]):
    """The published procedure keeps an earlier adapter on modules that the next one does not target."""
    narrow, wide = read_finetune(adapters[0]), read_finetune(adapters[4])
    before = vectors(encoder, [narrow])[0]
    vectors(encoder, [wide])
    assert np.array_equal(vectors(encoder, [narrow])[0], before)


def test_base_is_unchanged(encoder: Encoder, adapters: list[Path]):
    before = checksum(encoder.base.model)
    vectors(encoder, [read_finetune(folder) for folder in adapters])
    assert checksum(encoder.base.model) == before


def test_results_keep_the_order_of_adapters(encoder: Encoder, adapters: list[Path]):
    finetunes = [read_finetune(folder) for folder in adapters]
    forward, backward = vectors(encoder, finetunes), vectors(encoder, finetunes[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        assert relative_error(one, other) <= 1e-5


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 5), (10**9, [5]), (200, [2, 3])])
def test_batch_size_is_limited_by_tokens(
    encoder: Encoder, adapters: list[Path], monkeypatch: pytest.MonkeyPatch, limit: int, sizes: list[int]
):
    expected = vectors(encoder, [read_finetune(folder) for folder in adapters])
    monkeypatch.setattr(lora_path, "CPU_TOKENS", limit)
    models: list[int] = []

    def recording_run(plan: TokenPlan, count: int) -> list[Trace]:
        models.append(count)
        return run(plan, count)

    run = encoder.base.forward.run
    monkeypatch.setattr(encoder.base.forward, "run", recording_run)
    encoded = vectors(encoder, [read_finetune(folder) for folder in adapters])
    assert models == sizes
    assert all(relative_error(one, other) <= 1e-5 for one, other in zip(encoded, expected, strict=True))


def test_large_probe_set_is_run_in_parts(base: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.encoding.encoder.PART_TOKENS", 20)
    in_parts = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES, ["delta_activations", "delta_meaning"])
    monkeypatch.undo()
    at_once = Encoder(in_parts.base, PROBES, ["delta_activations", "delta_meaning"])
    finetune = read_finetune(adapters[4])
    (one,), (other,) = in_parts.encode([finetune]), at_once.encode([finetune])
    assert isinstance(one, Encoding)
    assert isinstance(other, Encoding)
    for feature in one.vectors:
        assert relative_error(one.vectors[feature], other.vectors[feature]) <= 1e-5


def test_adapter_that_does_not_fit_does_not_affect_others(encoder: Encoder, adapters: list[Path], tmp_path: Path):
    unfit = read_finetune(pico.make_adapter(tmp_path / "unfit", hidden=64))
    finetunes = [read_finetune(adapters[0]), unfit, read_finetune(adapters[1])]
    first, second, third = encoder.encode(finetunes)
    assert isinstance(second, ShapeMismatch)
    assert isinstance(first, Encoding)
    assert isinstance(third, Encoding)
    assert relative_error(first.vectors[FEATURE], vectors(encoder, finetunes[:1])[0]) <= 1e-5
    assert relative_error(third.vectors[FEATURE], vectors(encoder, finetunes[2:])[0]) <= 1e-5


def test_adapter_that_overflows_does_not_affect_others(encoder: Encoder, adapters: list[Path]):
    overflowing = with_tensors(read_finetune(adapters[1]), 3e38)
    alone = vectors(encoder, [read_finetune(adapters[0])])[0]
    first, second = encoder.encode([overflowing, read_finetune(adapters[0])])
    assert isinstance(first, NonFiniteVector)
    assert isinstance(second, Encoding)
    assert relative_error(second.vectors[FEATURE], alone) <= 1e-5


def test_error_names_a_module_that_the_base_lacks(encoder: Encoder, tmp_path: Path):
    folder = pico.make_adapter(tmp_path / "deep")
    weights = folder / "adapter_model.safetensors"
    tensors = {name.replace("layers.1.", "layers.7."): tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    (error,) = encoder.encode([read_finetune(folder)])
    assert isinstance(error, ShapeMismatch)
    assert "layers.7.self_attn" in str(error)


def test_hooks_are_removed_when_a_forward_pass_fails(encoder: Encoder, adapters: list[Path]):
    before = checksum(encoder.base.model)
    modules = {"layers.0.mlp.down_proj": next(iter(read_finetune(adapters[0]).modules.values()))}  # of another width
    with pytest.raises(RuntimeError), applied(encoder.base.model, [modules]):
        encoder.base.forward.run(encoder._plan)
    assert checksum(encoder.base.model) == before


def test_encoding_does_not_leak_tensors(encoder: Encoder, adapters: list[Path]):
    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(candidate), torch.Tensor) for candidate in gc.get_objects())

    vectors(encoder, [read_finetune(adapters[0])])
    before = alive()
    for _ in range(20):
        vectors(encoder, [read_finetune(folder) for folder in adapters])
    assert alive() == before


def test_one_probe_is_enough(base: Path, adapters: list[Path]):
    single = Encoder(ResidentBase.load(base, "pico/base", "0"), ProbeSet("one", ("Hello.",)))
    assert vectors(single, [read_finetune(adapters[0])])[0].shape == (32,)
