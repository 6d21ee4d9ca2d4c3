from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from catalog.errors import BaseModelCorrupted, CatalogError, InvalidAdapterConfig, ShapeMismatch, UnsupportedAdapter
from tests.support.pico_adapters import TASK, grow_vocabulary, publish
from tests.support.pico_models import PROBES, load_with, make_adapter, make_base, reference, relative_error
from workers.encoding.encoder import Encoder
from workers.encoding.guard import BaseGuard, checksum, restored
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.peft_kinds import peft_config
from workers.finetunes.reading import read_finetune

FEATURE = "delta_activations"
SEQUENCE = ("lora", "dora", "modules_to_save", "ia3", "larger_vocabulary", "oft", "prefix_tuning", "ln_tuning")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture
def encoder(base: Path) -> Encoder:
    return new_encoder(base)


def new_encoder(base: Path) -> Encoder:
    return Encoder(ResidentBase.load(base, "pico/llama", "0"), PROBES)


def encode(encoder: Encoder, *folders: Path) -> list[np.ndarray | CatalogError]:
    results = encoder.encode([read_finetune(folder) for folder in folders])
    return [result if isinstance(result, CatalogError) else result.vectors[FEATURE] for result in results]


def rewrite(folder: Path, change: Callable[[dict], object] | None = None, **settings: object) -> Path:
    """Change an adapter's tensors and settings."""
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors = load_file(weights)
    if change:
        change(tensors)
    save_file(tensors, weights)
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    return folder


# the base is unchanged


def test_adapters_in_sequence_get_the_same_vectors_as_alone(base: Path, tmp_path: Path):
    """The published procedure keeps an earlier adapter on modules that a later one does not target."""
    folders = [publish(base, tmp_path / kind, "llama", kind, seed=seed) for seed, kind in enumerate(SEQUENCE)]
    narrow = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type=TASK)
    folders.append(make_adapter(base, tmp_path / "narrow", narrow, seed=20))
    folders.append(make_adapter(base, tmp_path / "dora", peft.LoraConfig(**narrow.to_dict() | {"use_dora": True})))
    alone = [encode(new_encoder(base), folder)[0] for folder in folders]
    shared = new_encoder(base)
    for order in (range(len(folders)), reversed(range(len(folders)))):
        for index in order:
            np.testing.assert_allclose(encode(shared, folders[index])[0], alone[index], rtol=0, atol=1e-6)
    together = encode(shared, *folders)
    for index, vector in enumerate(together):
        np.testing.assert_allclose(vector, alone[index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["dora", "modules_to_save", "trained_tokens", "vera", "ln_tuning", "prefix_tuning"])
def test_every_module_and_tensor_is_restored(encoder: Encoder, base: Path, tmp_path: Path, kind: str):
    model = encoder.base.model
    before, modules = checksum(model), list(model.modules())
    tensors = list(model.state_dict(keep_vars=True).values())
    vector = encode(encoder, publish(base, tmp_path, "llama", kind))[0]
    assert isinstance(vector, np.ndarray)
    assert checksum(model) == before
    assert all(current is original for current, original in zip(model.modules(), modules, strict=True))
    assert all(
        current is original
        for current, original in zip(model.state_dict(keep_vars=True).values(), tensors, strict=True)
    )
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not hasattr(model, "peft_config")


def test_failed_adapter_does_not_affect_the_next(encoder: Encoder, base: Path, tmp_path: Path):
    good = publish(base, tmp_path / "good", "llama", "dora")
    expected = encode(encoder, good)[0]
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_magnitude_vector"
    bad = publish(base, tmp_path / "bad", "llama", "dora")
    rewrite(bad, lambda tensors: tensors.update({name: torch.ones(5)}))
    error, vector = encode(encoder, bad, good)
    assert isinstance(error, ShapeMismatch)
    np.testing.assert_array_equal(vector, expected)


def test_modified_base_is_rejected_from_then_on(encoder: Encoder, base: Path, tmp_path: Path):
    folders = [publish(base, tmp_path / kind, "llama", kind) for kind in ("dora", "ia3")]
    assert isinstance(encode(encoder, folders[0])[0], np.ndarray)
    norm = encoder.base.model.norm

    def add_in_place(module: nn.Module, args: object) -> None:
        with torch.no_grad():
            module.weight[3] += 1e-3

    handle = norm.register_forward_pre_hook(add_in_place)
    result = encode(encoder, folders[1])[0]
    handle.remove()
    assert isinstance(result, BaseModelCorrupted)
    assert result.transient
    assert encoder.corrupted
    assert all(isinstance(vector, BaseModelCorrupted) for vector in encode(encoder, *folders))


def test_encoder_with_an_unchanged_base_is_not_corrupted(encoder: Encoder, base: Path, tmp_path: Path):
    encode(encoder, publish(base, tmp_path, "llama", "loha"))
    assert not encoder.corrupted


@pytest.mark.parametrize(
    "disturb",
    [
        lambda model: model.layers[0].mlp.up_proj.weight[2].mul_(-1),
        lambda model: model.embed_tokens.weight[0].copy_(model.embed_tokens.weight[1]),
        lambda model: model.rotary_emb.inv_freq.add_(1e-6),
        lambda model: model.norm.register_forward_hook(lambda *_: None),
        lambda model: setattr(model.layers[0].mlp, "act_fn", nn.Identity()),
        lambda model: setattr(model, "norm", nn.Identity()),
        lambda model: setattr(model.norm, "forward", lambda x: x),
    ],
)
def test_guard_detects_changes(encoder: Encoder, disturb: Callable[[nn.Module], object]):
    guard = BaseGuard(encoder.base.model)
    guard.arm()
    guard.check()
    with torch.no_grad():
        disturb(encoder.base.model)
    with pytest.raises(BaseModelCorrupted):
        guard.check()
    with pytest.raises(BaseModelCorrupted):
        guard.arm()


def test_replaced_modules_are_restored_after_an_error(encoder: Encoder):
    model = encoder.base.model
    before = checksum(model)

    def replace_modules() -> None:
        with restored(model):
            model.layers[0].mlp.up_proj = nn.Linear(3, 3)
            model.norm._parameters["weight"] = nn.Parameter(torch.zeros(2))
            model.peft_config = {}
            model.extra = nn.Identity()
            assert checksum(model) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        replace_modules()
    assert checksum(model) == before


# untrusted configs


def test_config_cannot_import_or_load_anything(
    encoder: Encoder, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "planted_megatron.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    dora = rewrite(
        publish(base, tmp_path / "dora", "llama", "dora"),
        megatron_config={"tensor_model_parallel_size": 1},
        megatron_core="planted_megatron",
        corda_config={"covariance_file": str(tmp_path / "file.pt")},
        runtime_config={"ephemeral_gpu_offload": True},
        target_modules="(((a+)+)+)+$",
        exclude_modules="(((a+)+)+)+$",
    )
    prompt = rewrite(
        publish(base, tmp_path / "prompt", "llama", "prompt_tuning"),
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="text",
        tokenizer_name_or_path="owner/elsewhere",
        tokenizer_kwargs={"trust_remote_code": True},
    )
    expected = encode(encoder, publish(base, tmp_path / "again", "llama", "dora"))[0]
    vectors = encode(encoder, dora, prompt)
    np.testing.assert_array_equal(vectors[0], expected)
    assert isinstance(vectors[1], np.ndarray)
    assert "planted_megatron" not in sys.modules


@pytest.mark.parametrize(
    ("kind", "settings", "error"),
    [
        ("loha", {"r": 5}, ShapeMismatch),
        ("loha", {"r": 100_000}, InvalidAdapterConfig),
        ("loha", {"r": "8"}, (InvalidAdapterConfig, ShapeMismatch)),
        ("loha", {"alpha": float("nan")}, InvalidAdapterConfig),
        ("loha", {"rank_pattern": {"(?!o_proj).*": 4}}, InvalidAdapterConfig),
        ("oft", {"oft_block_size": 16}, ShapeMismatch),
        ("vera", {"save_projection": False}, InvalidAdapterConfig),
        ("vera_unsaved", {"save_projection": True}, InvalidAdapterConfig),
        ("trained_tokens", {"trainable_token_indices": [2, 70, -1]}, InvalidAdapterConfig),
        ("trained_tokens", {"trainable_token_indices": [2]}, InvalidAdapterConfig),
        ("prompt_tuning", {"num_virtual_tokens": 4}, InvalidAdapterConfig),
        ("prefix_tuning", {"num_attention_heads": 4}, ShapeMismatch),
        ("prefix_tuning", {"num_attention_heads": 0}, InvalidAdapterConfig),
        ("prefix_tuning", {"num_transformer_submodules": 2}, UnsupportedAdapter),
    ],
)
def test_false_config_is_rejected(
    encoder: Encoder, base: Path, tmp_path: Path, kind: str, settings: dict[str, object], error: type[CatalogError]
):
    folder = rewrite(publish(base, tmp_path, "llama", kind), **settings)
    outcome = encode(encoder, folder)[0]
    assert isinstance(outcome, error)
    assert not encoder.corrupted


@pytest.mark.parametrize(
    ("kind", "change", "error"),
    [
        ("dora", lambda tensors: tensors.pop(sorted(tensors)[2]), InvalidAdapterConfig),
        ("lokr", lambda tensors: tensors.pop(sorted(tensors)[0]), InvalidAdapterConfig),
        ("ia3", lambda tensors: tensors.update({f"{PREFIX}model.layers.9.mlp.up_proj.ia3_l": ONES}), ShapeMismatch),
        (
            "ia3",
            lambda tensors: tensors.update({f"{PREFIX}model.layers.0.mlp.up_proj.ia3_x": ONES}),
            InvalidAdapterConfig,
        ),
        ("ia3", lambda tensors: tensors.update({f"{PREFIX}model.extra.weight": ONES}), ShapeMismatch),
        ("ln_tuning", lambda tensors: tensors.update({f"{PREFIX}model.norm.weight": ONES}), ShapeMismatch),
        ("larger_vocabulary", lambda tensors: shrink(tensors, "embed_tokens"), ShapeMismatch),
        ("prompt_tuning", lambda tensors: tensors.update(prompt_embeddings=torch.ones(3, 8)), ShapeMismatch),
        ("prompt_tuning", lambda tensors: tensors.update(prompt_embeddings=ONES), InvalidAdapterConfig),
        ("prompt_tuning", lambda tensors: tensors.update(more=ONES), InvalidAdapterConfig),
        ("prefix_tuning", lambda tensors: tensors.update(prompt_embeddings=torch.ones(3, 63)), ShapeMismatch),
    ],
)
def test_tensors_that_do_not_fit_are_rejected(
    encoder: Encoder, base: Path, tmp_path: Path, kind: str, change: Callable[[dict], object], error: type[CatalogError]
):
    folder = rewrite(publish(base, tmp_path, "llama", kind), change)
    assert isinstance(encode(encoder, folder)[0], error)
    assert not encoder.corrupted


PREFIX = "base_model.model."
ONES = torch.ones(5)


def shrink(tensors: dict[str, torch.Tensor], part: str) -> None:
    """Shrink the vocabulary below the tokens of the probes."""
    for name in [name for name in tensors if part in name]:
        tensors[name] = tensors[name][:40].clone()


# other formats


def test_adapter_of_a_headless_model_gets_the_same_vector(encoder: Encoder, base: Path, tmp_path: Path):
    """Names in AutoModel lack the prefix `model.` of a causal LM."""
    causal = publish(base, tmp_path / "whole", "llama", "dora")
    headless = publish(base, tmp_path / "headless", "llama", "dora")

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace("model.model.model.", "model.model.")] = tensors.pop(name)

    one, two = encode(encoder, causal, rewrite(headless, rename))
    np.testing.assert_array_equal(one, two)


def test_tensor_names_with_the_adapter_name_are_read(encoder: Encoder, base: Path, tmp_path: Path):
    plain = publish(base, tmp_path / "plain", "llama", "loha")
    named = publish(base, tmp_path / "named", "llama", "loha")

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[f"{name}.default"] = tensors.pop(name)

    one, two = encode(encoder, plain, rewrite(named, rename))
    np.testing.assert_array_equal(one, two)


def test_low_rank_pairs_with_an_enlarged_embedding(base: Path, encoder: Encoder, tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], task_type=TASK)
    folder = make_adapter(base, tmp_path, config, prepare=grow_vocabulary)
    expected = reference(base, load_with(base, folder, prepare=grow_vocabulary))
    assert relative_error(encode(encoder, folder)[0], expected) <= 1e-4


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("mixtral"), "mixtral")


@pytest.mark.parametrize("targets", [["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], ["experts.down_proj"]])
def test_stacked_experts_match_peft(mixtral: Path, tmp_path: Path, targets: list[str]):
    config = peft.LoraConfig(r=3, target_modules=["q_proj"], target_parameters=targets, task_type=TASK)
    folder = make_adapter(mixtral, tmp_path, config)
    expected = reference(mixtral, load_with(mixtral, folder))
    assert relative_error(encode(new_encoder(mixtral), folder)[0], expected) <= 1e-4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_experts_as_separate_modules_match_peft(mixtral: Path, tmp_path: Path):
    """The layout of adapters trained with transformers 4."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(2):
        moe = f"{PREFIX}model.layers.{layer}.block_sparse_moe"
        modules = {f"{PREFIX}model.layers.{layer}.self_attn.q_proj": (32, 32)}
        for expert in range(4):
            modules |= {f"{moe}.experts.{expert}.{w}": (64, 32) for w in ("w1", "w3")}
            modules[f"{moe}.experts.{expert}.w2"] = (32, 64)
        for name, (out, into) in modules.items():
            tensors[f"{name}.lora_A.weight"] = torch.randn(3, into, generator=generator)
            tensors[f"{name}.lora_B.weight"] = 0.3 * torch.randn(out, 3, generator=generator)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    targets = ["q_proj", "w1", "w2", "w3"]
    peft.LoraConfig(r=3, target_modules=targets, task_type=TASK, inference_mode=True).save_pretrained(tmp_path)
    expected = reference(mixtral, load_with(mixtral, tmp_path))
    assert relative_error(encode(new_encoder(mixtral), tmp_path)[0], expected) <= 1e-4


# patterns, which are resolved to names before PEFT gets them


LAYERS = r"model\.layers\.\d+\."
PATTERN_CONFIGS: dict[str, peft.PeftConfig] = {
    "lora of a regular expression": peft.LoraConfig(r=4, target_modules=r".*\.(q_proj|v_proj)", task_type=TASK),
    "dora of all linear layers": peft.LoraConfig(r=4, use_dora=True, target_modules="all-linear", task_type=TASK),
    "dora of one layer": peft.LoraConfig(
        r=4,
        use_dora=True,
        target_modules=["q_proj", "down_proj"],
        layers_to_transform=[1],
        layers_pattern="layers",
        task_type=TASK,
    ),
    "dora except the first layer": peft.LoraConfig(
        r=4, use_dora=True, target_modules=["q_proj", "down_proj"], exclude_modules=r".*\.0\..*", task_type=TASK
    ),
    "dora of ranks by full names": peft.LoraConfig(
        r=4,
        use_dora=True,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"^model.layers.1.self_attn.q_proj": 2, r"model\.layers\.0\.self_attn\.v_proj": 6},
        alpha_pattern={"model.layers.1.self_attn.q_proj": 32},
        task_type=TASK,
    ),
    "lora of ranks by suffixes": peft.LoraConfig(
        r=4,
        target_modules="all-linear",
        rank_pattern={"self_attn.o_proj": 6, r".*\.1\.mlp.*": 5},
        alpha_pattern={f"{LAYERS}mlp.*": 1, "q_proj|k_proj": 32},
        task_type=TASK,
    ),
    "loha": peft.LoHaConfig(
        r=4,
        target_modules=rf"{LAYERS}.*proj",
        rank_pattern={"^model.layers.0.mlp.up_proj": 2, "down_proj": 6},
        alpha_pattern={r".*\.0\..*": 32},
        task_type=TASK,
    ),
    "lokr": peft.LoKrConfig(
        r=4,
        target_modules=["q_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 2},
        alpha_pattern={"down_proj": 32},
        task_type=TASK,
    ),
    "hira": peft.HiraConfig(r=4, target_modules=["q_proj"], rank_pattern={r".*\.0\..*": 6}, task_type=TASK),
    "delora": peft.DeloraConfig(
        r=4,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"v_proj": 2},
        lambda_pattern={"layers.0.self_attn.q_proj": 3},
        task_type=TASK,
    ),
    "fourierft": peft.FourierFTConfig(
        n_frequency=50,
        target_modules=["q_proj", "v_proj"],
        n_frequency_pattern={"q_proj": 30, "model.layers.0.self_attn.v_proj": 20},
        task_type=TASK,
    ),
    "c3a": peft.C3AConfig(
        block_size=8,
        target_modules=["q_proj", "v_proj"],
        block_size_pattern={r"0\.self_attn\.q_proj": 4, "model.layers.1.self_attn.v_proj": 16},
        task_type=TASK,
    ),
    "ia3": peft.IA3Config(
        target_modules=r".*\.(k_proj|v_proj|down_proj)", feedforward_modules=r".*\.down_proj", task_type=TASK
    ),
    "ia3 of everything": peft.IA3Config(
        target_modules=["q_proj", "down_proj"], feedforward_modules=r".*proj", task_type=TASK
    ),
    "weights by a suffix": peft.LoraConfig(
        r=4, target_modules=r".*q_proj", modules_to_save=["1.mlp.up_proj", "norm"], task_type=TASK
    ),
}


@pytest.mark.parametrize("name", PATTERN_CONFIGS)
def test_adapter_with_patterns_matches_peft(encoder: Encoder, base: Path, tmp_path: Path, name: str):
    folder = make_adapter(base, tmp_path, PATTERN_CONFIGS[name])
    expected = reference(base, load_with(base, folder))
    assert np.linalg.norm(expected) > 0.05
    # float32; the Fourier transforms of C3A round differently on each processor (1.2e-5 at most in what was seen)
    assert relative_error(encode(encoder, folder)[0], expected) <= 3e-5


def test_unknown_target_parameters_are_ignored(mixtral: Path, tmp_path: Path):
    config = peft.LoraConfig(r=3, target_modules=[], target_parameters=["experts.down_proj"], task_type=TASK)
    folder = make_adapter(mixtral, tmp_path, config)
    expected = reference(mixtral, load_with(mixtral, folder))
    # PEFT would compare each name with each parameter, which takes a minute per parameter
    rewrite(folder, target_parameters=["experts.down_proj", *(f"a.{number}" for number in range(300_000))])
    assert relative_error(encode(new_encoder(mixtral), folder)[0], expected) <= 1e-5


def test_too_many_target_modules_are_rejected():
    with pytest.raises(UnsupportedAdapter, match="more than 4,096 target modules"):
        peft_config({"peft_type": "LOHA"}, {f"layers.{number}": "" for number in range(4097)}, False)
