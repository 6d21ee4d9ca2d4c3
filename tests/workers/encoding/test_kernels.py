"""How linear layers compute in each dtype."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.pico_adapters import publish
from tests.support.pico_models import ARCHITECTURES, EACH_ARCHITECTURE, PROBES, make_base
from workers.encoding import kernels
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.kernels import FastLinear, GatedMLP, MixedConv1D
from workers.encoding.resident_base import ResidentBase
from workers.encoding.trace import run
from workers.finetunes.reading import read_finetune

FEATURE = "delta_activations"
TWINS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: make_base(folder / name, name) for name in ARCHITECTURES}


def encoder(base: Path, dtype: str) -> Encoder:
    return Encoder(ResidentBase.load(base, "pico/base", "0", dtype=dtype), PROBES)


def kinds(model: nn.Module) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 48), (1, 7, 48), (2, 3, 48)])
def test_a_fast_linear_layer_is_a_linear_layer(shape: tuple[int, ...], bias: bool):
    layer, x = nn.Linear(48, 32, bias=bias), torch.randn(shape)
    expected = layer(x)
    layer.__class__ = FastLinear
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected)


def test_double_precision_goes_the_usual_way():
    layer, x = nn.Linear(8, 4).double(), torch.randn(3, 8).double()
    torch.testing.assert_close(kernels.linear(x, layer.weight, layer.bias), layer(x))


@pytest.mark.parametrize("architecture", TWINS)
def test_twins_of_llamas_mlp_are_recognised(bases: dict[str, Path], architecture: str):
    model = ResidentBase.load(bases[architecture], "pico/base", "0").model
    assert type(model.layers[0].mlp) is GatedMLP


@pytest.mark.parametrize("architecture", ["phi3", "gpt_neox"])
def test_other_mlps_are_left_alone(bases: dict[str, Path], architecture: str):
    model = ResidentBase.load(bases[architecture], "pico/base", "0").model
    assert not any(isinstance(module, GatedMLP) for module in model.modules())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", EACH_ARCHITECTURE)
def test_reduced_vectors_point_where_those_of_float32_do(
    bases: dict[str, Path], tmp_path: Path, architecture: str, dtype: str
):
    finetune = read_finetune(publish(bases[architecture], tmp_path, architecture, "lora"))
    found = []
    for each in ("float32", dtype):
        (result,) = encoder(bases[architecture], each).encode([finetune])
        assert isinstance(result, Encoding)
        found.append(result.vectors[FEATURE])
    cosine = found[0] @ found[1] / np.linalg.norm(found[0]) / np.linalg.norm(found[1])
    assert cosine >= 0.9995


def test_hooks_on_the_mlps_own_layers_see_float32(bases: dict[str, Path]):
    """Adapters of the MLP live in such hooks; without any, one product is never widened."""
    model = ResidentBase.load(bases["llama"], "pico/base", "0", dtype="bfloat16").model
    mlp, x, seen = model.layers[0].mlp, torch.randn(1, 5, 32), []
    with torch.inference_mode():
        expected = mlp(x)
        for name in ("gate_proj", "up_proj", "down_proj"):
            mlp.get_submodule(name).register_forward_hook(lambda module, args, output: seen.extend([*args, output]))
        assert torch.equal(mlp(x), expected)
    assert {tensor.dtype for tensor in seen} == {torch.float32}


def test_only_queries_keys_norms_and_small_parameters_stay_in_float32(bases: dict[str, Path]):
    model = ResidentBase.load(bases["llama"], "pico/base", "0", dtype="bfloat16").model
    reduced = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.bfloat16}
    layer = {f"self_attn.{name}_proj" for name in "vo"} | {f"mlp.{name}_proj" for name in ("gate", "up", "down")}
    assert reduced == {"embed_tokens.weight"} | {f"layers.{n}.{name}.weight" for n in (0, 1) for name in layer}


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("phi3", "self_attn.qkv_proj"), ("gpt2", "attn.c_attn"), ("gpt_neox", "attention.query_key_value")],
)
def test_fused_projections_to_queries_and_keys_stay_in_float32(bases: dict[str, Path], architecture: str, name: str):
    model = ResidentBase.load(bases[architecture], "pico/base", "0", dtype="bfloat16").model
    (weight,) = (each for full, each in model.named_parameters() if full.endswith(f"0.{name}.weight"))
    assert weight.dtype == torch.float32


def test_a_reduced_base_is_smaller(bases: dict[str, Path]):
    full, reduced = (ResidentBase.load(bases["llama"], "pico/base", "0", dtype=d) for d in ("float32", "bfloat16"))
    assert reduced.nbytes < 0.7 * full.nbytes


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_exact_computes_with_nothing_rounded_but_the_weights(bases: dict[str, Path], architecture: str):
    reduced = encoder(bases[architecture], "bfloat16")
    rounded = encoder(bases[architecture], "float32")
    for name, parameter in reduced.base.model.named_parameters():
        rounded.base.model.get_parameter(name).data.copy_(parameter)
    with kernels.exact(reduced.base.model):
        found = run(reduced.base.model, reduced._plan, 1)[0].hidden
    torch.testing.assert_close(found, run(rounded.base.model, rounded._plan, 1)[0].hidden, rtol=1e-4, atol=1e-5)


def test_exact_puts_the_reduced_layers_back(bases: dict[str, Path]):
    model = ResidentBase.load(bases["gpt2"], "pico/base", "0", dtype="bfloat16").model
    before = kinds(model)
    with kernels.exact(model):
        assert kinds(model) != before
    assert kinds(model) == before
    assert MixedConv1D in before.values()


def test_the_deltas_of_adapters_are_not_rounded_away(bases: dict[str, Path], tmp_path: Path):
    finetune = read_finetune(publish(bases["llama"], tmp_path, "llama", "lora"))  # its targets are reduced layers
    assert "model.layers.0.mlp.down_proj" in finetune.modules
    (full,), (reduced,) = (encoder(bases["llama"], dtype).encode([finetune]) for dtype in ("float32", "bfloat16"))
    assert isinstance(full, Encoding)
    assert isinstance(reduced, Encoding)
    assert abs(reduced.norms[FEATURE] / full.norms[FEATURE] - 1) < 0.02
