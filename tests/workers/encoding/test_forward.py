"""Which path a base runs on is measured: its packed forward pass against its own plain one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers import models as architectures

from catalog.errors import CatalogError, UnsupportedBase
from tests.support.pico import byte_tokenizer
from tests.support.pico_models import (
    ARCHITECTURE_PARAMS,
    HIDDEN,
    PROBES,
    add_noise,
    load_with,
    make_adapter,
    make_base,
    reference,
    relative_error,
)
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.forward import MAX_RELATIVE_ERROR, PACKED, PLAIN
from workers.encoding.lora_path import _Delta
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

# PEFT's and transformers' warnings concern training
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

FEATURE = "delta_activations"


def lora(**settings: Any) -> peft.LoraConfig:
    return peft.LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **settings}
    )


SIZES: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "pad_token_id": 1,
}


def lfm2() -> PreTrainedConfig:
    """Layers that convolve over neighboring tokens."""
    return architectures.lfm2.Lfm2Config(
        **SIZES, num_key_value_heads=2, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False
    )


def nemotron() -> PreTrainedConfig:
    """Layers that do not pass keyword arguments on to attention."""
    return architectures.nemotron.NemotronConfig(**SIZES, num_key_value_heads=2, head_dim=8)


def write_base(folder: Path, config: PreTrainedConfig, auto: Any = AutoModelForCausalLM) -> Path:
    torch.manual_seed(0)
    model = auto.from_config(config)
    add_noise(model, 0, scale=0.1)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("lfm2"), lfm2())


def encoder(base: Path, dtype: str = "float32", **options: Any) -> Encoder:
    return Encoder(ResidentBase.load(base, "pico/base", "0", dtype=dtype), PROBES, **options)


def vectors(tested: Encoder, *adapters: Path) -> list[np.ndarray]:
    results = tested.encode([read_finetune(adapter) for adapter in adapters])
    assert all(isinstance(result, Encoding) for result in results), results
    return [result.vectors[FEATURE] for result in results if isinstance(result, Encoding)]


@pytest.mark.parametrize("architecture", ARCHITECTURE_PARAMS)
def test_plain_transformers_are_proven_and_run_packed(architecture: str, tmp_path: Path):
    base = make_base(tmp_path, architecture)
    for layer in (-1, 1):
        proof = encoder(base, layer=layer).proof
        assert proof.path == PACKED
        assert proof.error is not None
        assert proof.error <= MAX_RELATIVE_ERROR / 10


def test_proof_of_a_reduced_dtype_is_as_strict(tmp_path: Path):
    proof = encoder(make_base(tmp_path, "mixtral"), "bfloat16").proof
    assert proof.path == PACKED
    assert proof.error is not None
    assert proof.error <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("config", [lfm2, nemotron])
def test_other_classes_run_plain_with_the_vectors_of_peft(config: Callable[[], PreTrainedConfig], tmp_path: Path):
    base = write_base(tmp_path / "base", config())
    adapters = [make_adapter(base, tmp_path / str(seed), lora(), seed=seed) for seed in (1, 2)]
    tested = encoder(base)
    assert tested.proof.path == PLAIN
    assert tested.proof.reason
    together, alone = vectors(tested, *adapters), vectors(tested, adapters[1])
    for vector, adapter in zip(together, adapters, strict=True):
        assert relative_error(vector, reference(base, load_with(base, adapter))) <= 1e-4
    assert np.array_equal(alone[0], together[1])


@pytest.mark.parametrize(
    "config",
    [
        lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        lambda: peft.IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj", "w2"], feedforward_modules=["w2"]),
        lambda: lora(target_modules=["in_proj", "v_proj"], use_dora=True),
        lambda: lora(target_modules=["w1"], modules_to_save=["embed_tokens"]),
    ],
    ids=["prompt", "ia3", "dora", "saved"],
)
def test_every_kind_runs_on_the_plain_path(config: Callable[[], peft.PeftConfig], hybrid: Path, tmp_path: Path):
    adapter = make_adapter(hybrid, tmp_path, config())
    (vector,) = vectors(encoder(hybrid), adapter)
    assert relative_error(vector, reference(hybrid, load_with(hybrid, adapter))) <= 1e-4


def test_full_model_runs_on_the_plain_path(hybrid: Path, tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(hybrid)
    add_noise(model, 3, scale=0.05)
    model.save_pretrained(tmp_path)
    (vector,) = vectors(encoder(hybrid), tmp_path)
    assert relative_error(vector, reference(hybrid, model)) <= 1e-4


def test_every_feature_reads_the_same_states_on_both_paths(tmp_path: Path):
    base = make_base(tmp_path / "base", "llama")
    adapter = read_finetune(make_adapter(base, tmp_path / "adapter", lora()))
    tested = encoder(base, features=["delta_activations", "delta_layers", "delta_logits", "delta_meaning"])
    (packed,) = tested.encode([adapter])
    tested.measure_base()
    with tested.base.forward.plain():
        (plain,) = tested.encode([adapter])
    assert isinstance(packed, Encoding)
    assert isinstance(plain, Encoding)
    for feature, vector in packed.vectors.items():
        assert relative_error(vector, plain.vectors[feature]) <= 1e-4


def test_plain_context_restores_the_packed_model(tmp_path: Path):
    forward = encoder(make_base(tmp_path, "llama")).base.forward
    classes = [type(module) for module in forward.model.modules()]
    with forward.plain():
        plain_classes = [type(module) for module in forward.model.modules()]
        assert not any(kind.__module__.startswith("workers.") for kind in plain_classes)
    assert [type(module) for module in forward.model.modules()] == classes
    assert forward.path == PACKED


def test_plain_base_of_a_reduced_dtype_has_its_own_dtypes(hybrid: Path, tmp_path: Path):
    adapter = make_adapter(hybrid, tmp_path, lora())
    reduced, full = encoder(hybrid, "bfloat16"), encoder(hybrid)
    assert {parameter.dtype for parameter in reduced.base.model.parameters()} == {torch.bfloat16}
    (rounded,), (exact,) = vectors(reduced, adapter), vectors(full, adapter)
    assert rounded @ exact / np.linalg.norm(rounded) / np.linalg.norm(exact) >= 0.995


def test_neighbors_of_the_noise_floor_differ_from_the_base(hybrid: Path):
    """In a class that mixes the tokens of a row, a perturbed neighbor shows; an identical one would not."""
    tested = encoder(hybrid)
    packed = encoder(hybrid).base.forward
    packed.__init__(ResidentBase.load(hybrid, "pico/base", "0").model, torch.float32)  # type: ignore[misc]
    plan = tested._plan
    alone, behind = packed.run(plan)[0].final, packed.run_behind_neighbors(plan, 1).final
    assert alone is not None
    assert behind is not None
    assert (alone - behind).norm() > 1e-3 * alone.norm()


def test_disproved_kind_runs_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = make_base(tmp_path / "base", "llama")
    adapter = make_adapter(base, tmp_path / "adapter", lora())
    expected = reference(base, load_with(base, adapter))
    monkeypatch.setattr(_Delta, "__call__", lambda self, module, args, output: output)  # hooks that add nothing
    tested = encoder(base, prove_kinds=True)
    (vector,) = vectors(tested, adapter)
    assert tested.kind_errors["lora"] > MAX_RELATIVE_ERROR
    assert relative_error(vector, expected) <= 1e-4


def test_first_model_of_each_kind_is_compared(tmp_path: Path):
    base = make_base(tmp_path / "base", "llama")
    ia3 = peft.IA3Config(task_type="CAUSAL_LM", target_modules=["v_proj"], feedforward_modules=[])
    adapters = [make_adapter(base, tmp_path / str(index), config) for index, config in enumerate((lora(), ia3))]
    tested = encoder(base, prove_kinds=True)
    vectors(tested, *adapters, base)
    assert set(tested.kind_errors) == {"lora", "ia3", "full"}
    assert max(tested.kind_errors.values()) <= MAX_RELATIVE_ERROR


ENCODERS: dict[str, tuple[Callable[[], PreTrainedConfig], Any, str]] = {
    "bert": (lambda: architectures.bert.BertConfig(**SIZES), AutoModel, "tokens attend to later ones"),
    "t5": (
        lambda: architectures.t5.T5Config(
            d_model=HIDDEN, d_ff=64, d_kv=8, num_layers=2, num_heads=4, vocab_size=258, decoder_start_token_id=1
        ),
        AutoModel,
        "encoder-decoder",
    ),
    "whisper": (
        lambda: architectures.whisper.WhisperConfig(
            vocab_size=258, d_model=HIDDEN, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=8, pad_token_id=1,
            max_source_positions=32, max_target_positions=64, bos_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        ),
        AutoModel,
        "speech model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_models_without_a_causal_decoder_are_refused_by_name(name: str, tmp_path: Path):
    config, auto, words = ENCODERS[name]
    base = write_base(tmp_path, config(), auto)
    with pytest.raises(UnsupportedBase, match=words) as refused:
        encoder(base)
    assert name in str(refused.value)
    assert "Submit fine-tunes of causal language models" in str(refused.value)


def test_base_that_computes_nan_is_refused(tmp_path: Path):
    base = make_base(tmp_path, "llama")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base)
    model.get_parameter("model.norm.weight").data.fill_(float("nan"))
    model.save_pretrained(base)
    with pytest.raises(CatalogError, match="NaN or infinity"):
        encoder(base)
