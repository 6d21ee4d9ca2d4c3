"""LoRA on mixtures of experts: families x layouts.

Layouts that PEFT loads are compared with PEFT's forward pass. Those of transformers 4, which had a linear layer for
each expert and for the router, are compared with transformers' forward pass of the merged weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from catalog.errors import CatalogError, InvalidAdapterConfig, ShapeMismatch, UnsupportedAdapter
from tests.support.pico_experts import (
    ALPHA,
    CONFIG,
    EXPERTS,
    FAMILIES,
    PREFIX,
    RANK,
    WEIGHTS,
    lora_config,
    make_base,
    publish_by_layer,
    write_merged,
)
from tests.support.pico_models import PROBES, load, load_with, make_adapter, reference, relative_error
from workers.encoding.encoder import Encoder
from workers.encoding.guard import checksum
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

FEATURE = "delta_activations"
TOLERANCE = 1e-4
COMMON = ("qwen3_moe", "mixtral")
FAMILY_PARAMS = [name if name in COMMON else pytest.param(name, marks=pytest.mark.exhaustive) for name in FAMILIES]
ROUTERS = (".gate", ".router", ".router.layer")

Change = Callable[[dict[str, torch.Tensor]], object]  # of an adapter's tensors, in place

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::RuntimeWarning")


@dataclass(frozen=True)
class Mixture:
    """A base on disk and in an encoder."""

    folder: Path
    encoder: Encoder

    def encode(self, adapter: Path) -> np.ndarray:
        result = self.encoder.encode([read_finetune(adapter)])[0]
        if isinstance(result, CatalogError):
            raise result
        return result.vectors[FEATURE]

    def check_peft(self, adapter: Path) -> None:
        self.check(adapter, reference(self.folder, load_with(self.folder, adapter)))

    def check(self, adapter: Path, expected: np.ndarray) -> None:
        assert np.linalg.norm(expected) > 0.05
        assert relative_error(self.encode(adapter), expected) <= TOLERANCE

    @property
    def stacks(self) -> list[str]:
        """The names of stacked parameters, as an author would write them in target_parameters."""
        names = [name for name, parameter in load(self.folder).named_parameters() if parameter.ndim == 3]
        return sorted({".".join(name.split(".")[-2:]) for name in names})


class Mixtures:
    """One base of each family, created at the first access."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Mixture] = {}

    def __getitem__(self, family: str) -> Mixture:
        if family not in self._made:
            base = make_base(self._folder / family, family)
            resident = ResidentBase.load(base, f"pico/{family}", "0")
            self._made[family] = Mixture(base, Encoder(resident, PROBES))
        return self._made[family]


@pytest.fixture(scope="session")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Mixtures:
    return Mixtures(tmp_path_factory.mktemp("mixtures"))


def rewrite(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object] | None = None, **settings: object
) -> Path:
    tensors = load_file(folder / WEIGHTS)
    if change:
        change(tensors)
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | settings))
    return folder


def rename(old: str, new: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


def in_blocks(module: str) -> bool:
    return ".layers." in module and "norm" not in module


def check_merged(mixture: Mixture, folder: Path, chosen: Callable[[str], bool], **settings: object) -> None:
    merged = publish_by_layer(mixture.folder, folder / "adapter", chosen, **settings)
    tuned = load(write_merged(mixture.folder, folder / "merged", merged))
    mixture.check(folder / "adapter", reference(mixture.folder, tuned))


# the layouts that PEFT writes with transformers 5


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_usual_target_modules_match_peft(mixtures: Mixtures, family: str, tmp_path: Path):
    """For the experts, PEFT adds target parameters, and patterns of their ranks and alphas."""
    experts = ["w1", "w2", "w3"] if family == "mixtral" else ["gate_proj", "up_proj", "down_proj"]
    config = lora_config(target_modules=["q_proj", "k_proj", "v_proj", "o_proj", *experts])
    mixtures[family].check_peft(make_adapter(mixtures[family].folder, tmp_path, config))


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_target_parameters_match_peft(mixtures: Mixtures, family: str, tmp_path: Path):
    mixture = mixtures[family]
    config = lora_config(target_modules=["q_proj"], target_parameters=mixture.stacks)
    mixture.check_peft(make_adapter(mixture.folder, tmp_path, config))


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_target_parameters_with_patterns_match_peft(mixtures: Mixtures, family: str, tmp_path: Path):
    mixture = mixtures[family]
    first, last = mixture.stacks[0], mixture.stacks[-1].rpartition(".")[2]
    config = lora_config(
        target_modules=["q_proj"],
        target_parameters=mixture.stacks,
        use_rslora=True,
        rank_pattern={first: 2},
        alpha_pattern={last: 16, "q_proj": 3},
    )
    mixture.check_peft(make_adapter(mixture.folder, tmp_path, config))


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_router_as_a_target_parameter_matches_peft(mixtures: Mixtures, family: str, tmp_path: Path):
    mixture = mixtures[family]
    names = [name for name, _ in load(mixture.folder).named_parameters()]
    router = next(name for name in names if name.endswith(("gate.weight", "router.weight")))
    targets = [".".join(router.split(".")[-2:]), mixture.stacks[0]]
    config = lora_config(target_modules=["v_proj"], target_parameters=targets)
    mixture.check_peft(make_adapter(mixture.folder, tmp_path, config))


@pytest.mark.parametrize(
    "targets",
    [
        ["mlp.down_proj.weight"],
        ["model.layers.1.mlp.down_proj.weight", "layers.0.self_attn.k_proj.weight"],
        ["embed_tokens.weight", "up_proj.weight"],
    ],
)
def test_target_parameters_of_dense_layers_match_peft(mixtures: Mixtures, targets: list[str], tmp_path: Path):
    mixture = mixtures["qwen3_moe"]  # its second layer is dense
    settings = {"alpha_pattern": {targets[-1]: 16}, "rank_pattern": {targets[0]: 2}}
    config = lora_config(target_modules=["q_proj"], target_parameters=targets, **settings)
    mixture.check_peft(make_adapter(mixture.folder, tmp_path, config))


# the layouts of transformers 4


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_all_linear_layers_match_merged_weights(mixtures: Mixtures, family: str, tmp_path: Path):
    check_merged(mixtures[family], tmp_path, in_blocks)


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_rslora_of_all_linear_layers_matches_merged_weights(mixtures: Mixtures, family: str, tmp_path: Path):
    check_merged(mixtures[family], tmp_path, in_blocks, use_rslora=True)


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_attention_alone_matches_merged_weights(mixtures: Mixtures, family: str, tmp_path: Path):
    check_merged(mixtures[family], tmp_path, lambda module: in_blocks(module) and "attn" in module)


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_router_alone_matches_merged_weights(mixtures: Mixtures, family: str, tmp_path: Path):
    check_merged(mixtures[family], tmp_path, lambda module: module.endswith(ROUTERS))


def test_one_projection_of_some_experts_matches_merged_weights(mixtures: Mixtures, tmp_path: Path):
    """PEFT does not load a gate without its up projection."""
    check_merged(mixtures["mixtral"], tmp_path, lambda module: module.endswith((".1.w1", ".3.w1")))


def test_dora_of_experts_matches_merged_weights(mixtures: Mixtures, tmp_path: Path):
    mixture = mixtures["mixtral"]
    merged = publish_by_layer(mixture.folder, tmp_path, lambda module: ".experts." in module)
    magnitudes = {}
    for name in load_file(tmp_path / WEIGHTS):
        if ".lora_A." in name:
            module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            tuned = merged[f"{module}.weight"]
            magnitude = tuned.norm(dim=1) * torch.linspace(0.5, 2, len(tuned))
            merged[f"{module}.weight"] = tuned * (magnitude / tuned.norm(dim=1))[:, None]
            magnitudes[f"{PREFIX}{module}.lora_magnitude_vector"] = magnitude
    rewrite(tmp_path, lambda tensors: tensors.update(magnitudes), use_dora=True)
    tuned = load(write_merged(mixture.folder, tmp_path / "merged", merged))
    mixture.check(tmp_path, reference(mixture.folder, tuned))


def test_router_that_was_saved_in_full_replaces_that_of_the_base(mixtures: Mixtures, tmp_path: Path):
    mixture = mixtures["mixtral"]
    merged = publish_by_layer(mixture.folder, tmp_path, lambda module: module.endswith("q_proj"))
    saved = {}
    for name in [name for name in merged if name.endswith("block_sparse_moe.gate.weight")]:
        merged[name] = merged[name] + torch.randn(merged[name].shape, generator=torch.Generator().manual_seed(1))
        saved[f"{PREFIX}{name}"] = merged[name]
    rewrite(tmp_path, lambda tensors: tensors.update(saved), modules_to_save=["gate"])
    tuned = load(write_merged(mixture.folder, tmp_path / "merged", merged))
    mixture.check(tmp_path, reference(mixture.folder, tuned))


@pytest.mark.exhaustive
def test_stacks_under_their_former_names_match_peft(mixtures: Mixtures, tmp_path: Path):
    """Granite's stacks were the weights of two modules."""
    mixture = mixtures["granitemoe"]
    config = lora_config(target_modules=["q_proj"], target_parameters=["experts.gate_up_proj"])
    folder = make_adapter(mixture.folder, tmp_path, config)
    expected = reference(mixture.folder, load_with(mixture.folder, folder))
    change = rename("block_sparse_moe.experts.", "block_sparse_moe.input_linear.")
    rewrite(folder, change, target_parameters=["input_linear.weight"])
    mixture.check(folder, expected)


def test_stack_whose_factors_are_swapped_matches_peft(mixtures: Mixtures, tmp_path: Path):
    """Before PEFT 0.19, A had the width of a stack's second dimension, also where that is the output."""
    mixture = mixtures["qwen3_moe"]
    config = lora_config(target_parameters=["experts.down_proj"])
    folder = make_adapter(mixture.folder, tmp_path, config)
    expected = reference(mixture.folder, load_with(mixture.folder, folder))

    def swap(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".lora_A." in name]:
            other = name.replace("lora_A", "lora_B")
            a, b = tensors[name], tensors[other]  # (E r, in), (out, r E)
            by_rank = a.view(EXPERTS, RANK, -1).permute(2, 1, 0).reshape(a.shape[1], -1)
            by_expert = b.view(len(b), RANK, EXPERTS).permute(2, 1, 0).reshape(-1, len(b))
            tensors |= {name: by_expert.contiguous(), other: by_rank.contiguous()}

    mixture.check(rewrite(folder, swap), expected)


# the base, and what is refused


def test_experts_of_the_base_are_restored(mixtures: Mixtures, tmp_path: Path):
    mixture = mixtures["mixtral"]
    model = mixture.encoder.base.model
    before, stack = checksum(model), model.layers[0].mlp.experts.gate_up_proj
    publish_by_layer(mixture.folder, tmp_path, in_blocks)
    mixture.encode(tmp_path)
    assert checksum(model) == before
    assert model.layers[0].mlp.experts.gate_up_proj is stack


def test_layout_of_unsloth_is_refused_by_name(mixtures: Mixtures, tmp_path: Path):
    mixture = mixtures["mixtral"]
    publish_by_layer(mixture.folder, tmp_path, lambda module: ".experts." in module and module.endswith("w2"))
    rewrite(tmp_path, rename(".w2.", "."))
    rewrite(tmp_path, rename("block_sparse_moe.experts.", "mlp.experts.down_projs."))
    with pytest.raises(UnsupportedAdapter, match=r"unsloth's layout .* submit the merged model"):
        read_finetune(tmp_path)


@pytest.mark.parametrize(
    ("change", "settings", "error", "message"),
    [
        (None, {"r": 2}, InvalidAdapterConfig, f"rank 2 for each of {EXPERTS} experts"),
        (None, {"target_parameters": ["a"]}, InvalidAdapterConfig, "1 low-rank pairs of .* must name as many"),
        (None, {"target_parameters": None}, InvalidAdapterConfig, "target_parameters .* must name the parameter"),
        (None, {"target_parameters": "a"}, InvalidAdapterConfig, "is not a list of names"),
        (rename("mlp.experts", "mlp.exports"), {}, ShapeMismatch, "no module layers.0.mlp.exports"),
        (lambda tensors: tensors.popitem(), {}, InvalidAdapterConfig, "is missing"),
        (
            lambda tensors: tensors.update(
                {name: tensors[name][:, :-1].contiguous() for name in tensors if "_A" in name}
            ),
            {},
            ShapeMismatch,
            "in the base; the adapter's A is",
        ),
    ],
)
def test_stacks_that_do_not_fit_are_refused(
    mixtures: Mixtures,
    tmp_path: Path,
    change: Change | None,
    settings: dict[str, object],
    error: type[CatalogError],
    message: str,
):
    mixture = mixtures["qwen3_moe"]
    config = lora_config(target_parameters=["experts.down_proj"])
    folder = rewrite(make_adapter(mixture.folder, tmp_path, config), change, **settings)
    with pytest.raises(error, match=message):
        mixture.encode(folder)


def test_expert_that_the_base_does_not_have_is_refused(mixtures: Mixtures, tmp_path: Path):
    mixture = mixtures["mixtral"]
    publish_by_layer(mixture.folder, tmp_path, lambda module: module.endswith(".3.w1"))
    with pytest.raises(ShapeMismatch, match=r"no module layers\.0\.block_sparse_moe\.experts\.7\.w1"):
        mixture.encode(rewrite(tmp_path, rename("experts.3.", "experts.7.")))


def test_kind_that_experts_cannot_have_is_refused_by_name(mixtures: Mixtures, tmp_path: Path):
    mixture = mixtures["mixtral"]
    publish_by_layer(mixture.folder, tmp_path, lambda module: module.endswith(".3.w1"))
    rewrite(tmp_path, rename(".lora_", ".hada_"))
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LOHA", "r": RANK, "alpha": ALPHA}))
    with pytest.raises(UnsupportedAdapter, match="part of a mixture of experts, of which only LoRA"):
        mixture.encode(tmp_path)


def test_experts_of_a_reduced_base_have_nearly_the_same_vector(mixtures: Mixtures, tmp_path: Path):
    mixture = mixtures["mixtral"]
    publish_by_layer(mixture.folder, tmp_path, in_blocks)
    exact = mixture.encode(tmp_path)
    resident = ResidentBase.load(mixture.folder, "pico/mixtral", "0", dtype="bfloat16")
    reduced = Mixture(mixture.folder, Encoder(resident, PROBES)).encode(tmp_path)
    cosine = float(reduced @ exact / (np.linalg.norm(reduced) * np.linalg.norm(exact)))
    assert cosine > 0.99
