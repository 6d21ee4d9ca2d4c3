"""Faster forwards of linear layers and gated MLPs, in each dtype."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaMLP
from transformers.pytorch_utils import Conv1D

from tests.support.pico_adapters import publish
from tests.support.pico_models import ARCHITECTURE_PARAMS, ARCHITECTURES, PROBES, make_base
from workers.encoding import kernels
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.kernels import FastLinear, GatedMLP, MixedConv1D
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

FEATURE = "delta_activations"
GATED_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")

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
def test_fast_linear_layer_gives_the_values_of_a_linear_layer(shape: tuple[int, ...], bias: bool):
    layer, x = nn.Linear(48, 32, bias=bias), torch.randn(shape)
    expected = layer(x)
    layer.__class__ = FastLinear
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected)


def test_double_precision_uses_torchs_own_linear():
    layer, x = nn.Linear(8, 4).double(), torch.randn(3, 8).double()
    torch.testing.assert_close(kernels.linear(x, layer.weight, layer.bias), layer(x))


@pytest.mark.parametrize("bias", [True, False])
def test_linear_without_onednn_gives_the_same_values(monkeypatch: pytest.MonkeyPatch, bias: bool):
    layer, x = nn.Linear(48, 32, bias=bias), torch.randn(7, 48)
    with torch.inference_mode():
        fast = kernels.linear(x, layer.weight, layer.bias)
        monkeypatch.setattr(kernels, "has_onednn_linear", lambda: False)
        monkeypatch.setattr(kernels, "_onednn_linear", lambda *_: pytest.fail("the operator was called"))
        torch.testing.assert_close(kernels.linear(x, layer.weight, layer.bias), fast)


@pytest.mark.parametrize(
    "operator",
    [
        lambda x, weight, bias: F.linear(x, weight, bias) * 1.001,
        lambda x, weight, bias: F.linear(x, weight),
        lambda x, weight, bias: torch.ops.mkldnn.no_such_operator(x),
    ],
    ids=["scaled", "without bias", "missing"],
)
def test_onednn_operator_with_other_values_is_not_used(monkeypatch: pytest.MonkeyPatch, operator):
    monkeypatch.setattr(kernels, "_onednn_linear", operator)
    assert not kernels.has_onednn_linear.__wrapped__()


@pytest.mark.parametrize("kind", [kernels.MixedConv1D, kernels.ExactConv1D])
def test_conv1d_in_float32_gives_the_values_of_conv1d(kind: type[Conv1D]):
    layer, x = Conv1D(32, 48), torch.randn(1, 7, 48)
    with torch.inference_mode():
        expected = layer(x)
        layer.__class__ = kind
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("architecture", GATED_ARCHITECTURES)
def test_gated_mlps_get_the_fast_forward(bases: dict[str, Path], architecture: str):
    model = ResidentBase.load(bases[architecture], "pico/base", "0").model
    assert type(model.layers[0].mlp) is GatedMLP


@pytest.mark.parametrize("architecture", ["phi3", "gpt_neox"])
def test_other_mlps_keep_their_forward(bases: dict[str, Path], architecture: str):
    model = ResidentBase.load(bases[architecture], "pico/base", "0").model
    assert not any(isinstance(module, GatedMLP) for module in model.modules())


class SameFormula(LlamaMLP):
    """Llama's values by other code."""

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        return self.down_proj(up * self.act_fn(self.gate_proj(x)))


class OtherActivation(LlamaMLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.gate_proj(x)) * self.up_proj(x))


class Clamped(LlamaMLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x).clamp(max=50)) * self.up_proj(x))


class ScaledByLayer(LlamaMLP):
    scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class WithoutBias(LlamaMLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(F.linear(x, self.gate_proj.weight)) * self.up_proj(x))


class TakesTwo(LlamaMLP):
    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def mlps(kind: type[LlamaMLP], count: int = 2) -> nn.ModuleList:
    config = LlamaConfig(hidden_size=32, intermediate_size=64)
    return nn.ModuleList(kind(config) for _ in range(count)).requires_grad_(False)


def test_same_formula_in_other_code_gets_the_fast_forward():
    model, x = mlps(SameFormula), torch.randn(1, 5, 32)
    expected = model[0](x)
    kernels.install(model, torch.float32)
    assert [type(mlp) for mlp in model] == [GatedMLP, GatedMLP]
    torch.testing.assert_close(model[0](x), expected)


@pytest.mark.parametrize("kind", [OtherActivation, Clamped, WithoutBias, TakesTwo])
def test_other_formula_keeps_its_forward_and_is_logged_once_for_each_class(
    caplog: pytest.LogCaptureFixture, kind: type[LlamaMLP]
):
    model = mlps(kind)
    with caplog.at_level(logging.INFO, kernels.__name__):
        kernels.install(model, torch.float32)
    assert [type(mlp) for mlp in model] == [kind, kind]
    assert [record.message.split()[0] for record in caplog.records] == [kind.__name__]


def test_each_layer_of_a_class_is_compared():
    model = mlps(ScaledByLayer)
    model[1].scale = 1.001
    kernels.install(model, torch.float32)
    assert [type(mlp) for mlp in model] == [GatedMLP, ScaledByLayer]


def test_comparing_formulas_leaves_module_and_random_state_unchanged():
    (mlp,) = mlps(LlamaMLP, 1)
    before, state = dict(vars(mlp), _modules=dict(mlp._modules)), torch.get_rng_state()
    kernels._probe_projections.cache_clear()
    assert kernels.computes_gated_mlp(mlp)
    assert vars(mlp) == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ARCHITECTURE_PARAMS)
def test_vectors_in_a_reduced_dtype_are_close_to_float32(
    bases: dict[str, Path], tmp_path: Path, architecture: str, dtype: str
):
    finetune = read_finetune(publish(bases[architecture], tmp_path, architecture, "lora"))
    vectors = []
    for name in ("float32", dtype):
        (result,) = encoder(bases[architecture], name).encode([finetune])
        assert isinstance(result, Encoding)
        vectors.append(result.vectors[FEATURE])
    cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert cosine >= 0.9995


def test_hooks_on_mlp_projections_see_float32(bases: dict[str, Path]):
    """Adapters of the MLP run in such hooks; without hooks, one product stays in the reduced dtype."""
    model = ResidentBase.load(bases["llama"], "pico/base", "0", dtype="bfloat16").model
    mlp, x, tensors = model.layers[0].mlp, torch.randn(1, 5, 32), []
    with torch.inference_mode():
        expected = mlp(x)
        for name in ("gate_proj", "up_proj", "down_proj"):
            mlp.get_submodule(name).register_forward_hook(lambda module, args, output: tensors.extend([*args, output]))
        assert torch.equal(mlp(x), expected)
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


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
    (weight,) = (weight for full, weight in model.named_parameters() if full.endswith(f"0.{name}.weight"))
    assert weight.dtype == torch.float32


def test_reduced_base_is_smaller(bases: dict[str, Path]):
    full, reduced = (ResidentBase.load(bases["llama"], "pico/base", "0", dtype=d) for d in ("float32", "bfloat16"))
    assert reduced.nbytes < 0.7 * full.nbytes


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_exact_rounds_only_the_weights(bases: dict[str, Path], architecture: str):
    reduced = encoder(bases[architecture], "bfloat16")
    rounded = encoder(bases[architecture], "float32")
    for name, parameter in reduced.base.model.named_parameters():
        rounded.base.model.get_parameter(name).data.copy_(parameter)
    with kernels.exact(reduced.base.model):
        hidden = reduced.base.forward.run(reduced._plan)[0].hidden
    torch.testing.assert_close(hidden, rounded.base.forward.run(rounded._plan)[0].hidden, rtol=1e-4, atol=1e-5)


def test_exact_restores_the_reduced_layers(bases: dict[str, Path]):
    model = ResidentBase.load(bases["gpt2"], "pico/base", "0", dtype="bfloat16").model
    before = kinds(model)
    with kernels.exact(model):
        assert kinds(model) != before
    assert kinds(model) == before
    assert MixedConv1D in before.values()


def test_adapter_deltas_survive_a_reduced_dtype(bases: dict[str, Path], tmp_path: Path):
    finetune = read_finetune(publish(bases["llama"], tmp_path, "llama", "lora"))  # its targets are reduced layers
    assert "model.layers.0.mlp.down_proj" in finetune.modules
    (full,), (reduced,) = (encoder(bases["llama"], dtype).encode([finetune]) for dtype in ("float32", "bfloat16"))
    assert isinstance(full, Encoding)
    assert isinstance(reduced, Encoding)
    assert abs(reduced.norms[FEATURE] / full.norms[FEATURE] - 1) < 0.02
