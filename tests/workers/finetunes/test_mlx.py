"""Adapters in the format of MLX, compared with weights that were merged by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from catalog.errors import InvalidAdapterConfig, UnsupportedAdapter
from tests.support import pico
from tests.support.pico_models import PROBES, load, make_base, reference, relative_error
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

SCALE, RANK = 20.0, 4
CONFIG = {
    "fine_tune_type": "lora",
    "num_layers": 2,
    "lora_parameters": {"rank": RANK, "scale": SCALE, "dropout": 0.0},
    "model": "pico/llama",
}
MODULES = {"self_attn.q_proj": (32, 32), "self_attn.v_proj": (16, 32), "mlp.down_proj": (32, 64)}  # (out, in)
ATTENTION = "model.layers.0.self_attn.q_proj"


def mlx_tensors(prefix: str = "", seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(2):
        for module, (wide_out, wide_in) in MODULES.items():
            name = f"{prefix}model.layers.{layer}.{module}"
            tensors[f"{name}.lora_a"] = torch.randn(wide_in, RANK, generator=generator) * 0.1
            tensors[f"{name}.lora_b"] = torch.randn(RANK, wide_out, generator=generator) * 0.1
    return tensors


def write(folder: Path, tensors: dict[str, torch.Tensor], **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapters.safetensors", metadata={"format": "mlx"})
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | settings))
    return folder


def merge(model: PreTrainedModel, tensors: dict[str, torch.Tensor], magnitudes: dict[str, torch.Tensor]) -> None:
    """Add `scale * (A B)^T` to the weights, and give their rows the lengths `magnitudes`."""
    for name in {key.rpartition(".")[0] for key in tensors}:
        weight = model.get_submodule(name).weight
        weight.data += SCALE * (tensors[f"{name}.lora_a"] @ tensors[f"{name}.lora_b"]).T
        if name in magnitudes:
            weight.data *= (magnitudes[name] / weight.data.norm(dim=1))[:, None]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("dora", "settings"),
    [
        (False, {"fine_tune_type": "lora"}),
        (True, {"fine_tune_type": "dora"}),
        (True, {"fine_tune_type": None, "use_dora": True}),  # until the end of 2024
    ],
)
def test_vector_is_that_of_the_merged_weights(tmp_path: Path, dora: bool, settings: dict[str, Any]):
    base = make_base(tmp_path / "base", "llama")
    tensors = mlx_tensors()
    magnitudes = {}
    model = load(base)
    if dora:
        magnitudes = {
            name: model.get_submodule(name).weight.data.norm(dim=1) * 1.2
            for name in {key.rpartition(".")[0] for key in tensors}
        }
    merge(model, tensors, magnitudes)
    stored = tensors | {f"{name}.m": magnitude for name, magnitude in magnitudes.items()}
    folder = write(tmp_path / "mlx", stored, **settings)
    encoder = Encoder(ResidentBase.load(base, "pico/llama", "0"), PROBES, ["delta_activations"])
    (encoding,) = encoder.encode([read_finetune(folder)])
    assert isinstance(encoding, Encoding), encoding
    assert relative_error(encoding.vectors["delta_activations"], reference(base, model)) < 1e-4


def test_adapter_is_read_as_lora_of_the_model_in_its_config(tmp_path: Path):
    finetune = read_finetune(write(tmp_path, mlx_tensors()))
    assert (finetune.kind, finetune.path, finetune.declared_base) == ("lora", "lora", "pico/llama")
    assert {module.scale for module in finetune.modules.values()} == {SCALE}
    assert finetune.notes == ("The adapter was read from the format of MLX.",)


def test_numbered_checkpoints_beside_the_adapter_are_ignored(tmp_path: Path):
    folder = write(tmp_path, mlx_tensors())
    save_file(mlx_tensors(seed=1), folder / "0000100_adapters.safetensors")
    expected = mlx_tensors()[f"{ATTENTION}.lora_a"].T
    assert torch.equal(read_finetune(folder).modules[ATTENTION].a, expected)


def test_older_config_without_fine_tune_type_is_read(tmp_path: Path):
    folder = write(tmp_path, mlx_tensors())
    parameters = {"rank": RANK, "alpha": RANK, "scale": SCALE, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({"lora_layers": 2, "lora_parameters": parameters}))
    assert {module.scale for module in read_finetune(folder).modules.values()} == {SCALE}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fine_tune_type": "full", "lora_parameters": None}, r"'full'.*fuse it"),
        ({"fine_tune_type": "new"}, r"'new'.*fuse it"),
        ({"lora_parameters": None, "rank": 4, "alpha": 0.1}, r"no lora_parameters.*Write lora_parameters"),
    ],
)
def test_other_kinds_of_mlx_are_refused_by_name(tmp_path: Path, settings: dict[str, object], words: str):
    with pytest.raises(UnsupportedAdapter, match=words):
        read_finetune(write(tmp_path, mlx_tensors(), **settings))


def test_scale_that_depends_on_the_version_is_refused(tmp_path: Path):
    folder = write(tmp_path, mlx_tensors())
    parameters = {"rank": RANK, "alpha": 16, "scale": 10.0, "dropout": 0.0}
    (folder / "adapter_config.json").write_text(json.dumps({"lora_layers": 2, "lora_parameters": parameters}))
    with pytest.raises(UnsupportedAdapter, match=r"alpha and scale.*remove alpha"):
        read_finetune(folder)


@pytest.mark.parametrize("scale", [None, "20", True, float("nan")])
def test_scale_that_is_no_number_is_invalid(tmp_path: Path, scale: object):
    with pytest.raises(InvalidAdapterConfig, match=r"scale in lora_parameters.*write the number"):
        read_finetune(write(tmp_path, mlx_tensors(), lora_parameters={"rank": RANK, "scale": scale}))


@pytest.mark.parametrize("rank", [None, "4", 8])
def test_rank_unlike_the_tensors_is_invalid(tmp_path: Path, rank: object):
    with pytest.raises(InvalidAdapterConfig, match="rank"):
        read_finetune(write(tmp_path, mlx_tensors(), lora_parameters={"rank": rank, "scale": SCALE}))


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("model.layers.0.mlp.switch_mlp.up_proj.lora_a", (4, RANK, 32), "stacked experts"),
        ("model.embed_tokens.lora_a", (258, RANK), "embedding"),
        (f"{ATTENTION}.lora_a_scales", (4, 4), "only LoRA and DoRA in floats"),
        ("model.norm.weight", (32,), "only LoRA and DoRA in floats"),
    ],
)
def test_tensors_that_are_no_lora_are_refused_by_name(tmp_path: Path, name: str, shape: tuple[int, ...], words: str):
    with pytest.raises(UnsupportedAdapter, match=rf"{name}.*{words}.*fuse"):
        read_finetune(write(tmp_path, mlx_tensors() | {name: torch.ones(shape)}))


def test_adapter_of_peft_takes_precedence(tmp_path: Path):
    write(tmp_path, mlx_tensors())
    assert read_finetune(pico.make_adapter(tmp_path)).notes == ()
