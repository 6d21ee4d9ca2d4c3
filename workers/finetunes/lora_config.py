"""The config and tensors of a LoRA adapter, as (A, B, scale) for each module.

Keys and scaling as PEFT writes them: https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from catalog.errors import InvalidAdapterConfig, UnsupportedAdapter
from workers.finetunes.module_patterns import ModulePatterns

MAX_RANK = 8192
PEFT_PREFIX = "base_model.model."
LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.default)?(\.weight)?")
# parts of a mixture of experts, which are modules in some versions of transformers and parameters in others
MIXTURE_MODULE = re.compile(r"(^|\.)(experts|router|gate|input_linear|output_linear)(\.|$)")
UNSUPPORTED_SETTINGS = (  # they change the forward pass in ways that no encoding path implements
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)
# other initializations (PiSSA, OLoRA, CorDA, LoftQ) change the base's weights before A and B are added
INITS_WITH_UNCHANGED_BASE = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraModule:
    """The low-rank change of one module: `y += scale * B A x`.

    For an embedding, the columns of `a` are the rows that are looked up, so both kinds have the same shapes.
    """

    a: torch.Tensor  # (r, in)
    b: torch.Tensor  # (out, r)
    scale: float
    embedding: bool


def check_lora(config: Mapping[str, Any]) -> None:
    """Raises `UnsupportedAdapter` if the adapter is not plain LoRA on an unchanged base."""
    init = config.get("init_lora_weights")
    if init not in INITS_WITH_UNCHANGED_BASE:
        raise UnsupportedAdapter(
            f"The adapter was made with init_lora_weights={str(init)[:40]!r}, which also changed its base's weights: "
            "convert it to a plain LoRA (PEFT's `path_initial_model_for_weight_conversion`)."
        )
    for setting in UNSUPPORTED_SETTINGS:
        if config.get(setting):
            raise UnsupportedAdapter(f"LoRA with {setting} cannot be run.")


def parse_lora(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, LoraModule]:
    """Low-rank modules by their names in the adapter, without PEFT's `base_model.model.`; other tensors are ignored.
    If the adapter has target parameters, so are pairs of another rank than a module of that name would have.

    Raises `InvalidAdapterConfig` for an invalid rank or alpha, and for an A without B or the reverse.
    """
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    embeddings = set()
    for key, tensor in tensors.items():
        match = LORA_KEY.fullmatch(key)
        if match is None:
            continue
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise InvalidAdapterConfig(f"{key[:120]} is not a matrix of floats.")
        module = match["module"].removeprefix(PEFT_PREFIX)
        pairs.setdefault(module, {})[match["side"]] = tensor
        if match["embedding"]:
            embeddings.add(module)
    check_rank(config.get("r"))
    ranks, alphas = ModulePatterns(config, "rank_pattern"), ModulePatterns(config, "alpha_pattern")
    of_parameters = bool(target_parameters(config))
    modules = {}
    for name, pair in pairs.items():
        rank = check_rank(ranks.value(name, config.get("r")))
        alpha = check_alpha(name, alphas.value(name, config.get("lora_alpha", 8)))
        a, b = check_pair(name, pair)
        if a.shape[0] == rank == b.shape[1]:
            modules[name] = LoraModule(a, b, scaling(alpha, rank, config), name in embeddings)
        elif not of_parameters:
            raise InvalidAdapterConfig(
                f"{name[:120]}: the config says rank {rank}, A is {list(a.shape)} and B {list(b.shape)}."
            )
    return modules


def target_parameters(config: Mapping[str, Any]) -> list[str]:
    """PEFT's names of parameters that are changed, unlike those of modules. Raises `InvalidAdapterConfig`."""
    parameters = config.get("target_parameters") or []
    if not isinstance(parameters, list) or not all(isinstance(name, str) for name in parameters):
        raise InvalidAdapterConfig("target_parameters is not a list of names.")
    return parameters


def scaling(alpha: float, rank: int, config: Mapping[str, Any]) -> float:
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)  # rsLoRA, arXiv 2312.03732 section 3


def parse_adalora(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, LoraModule]:
    """AdaLoRA, `y += alpha / init_r * B diag(E) A x` (arXiv 2303.10512 section 3.1), as plain LoRA.

    Raises `InvalidAdapterConfig`.
    """
    rank = check_rank(config.get("init_r"))
    alpha = check_alpha("AdaLoRA", config.get("lora_alpha", 8))
    scale = (alpha if alpha > 0 else rank) / (rank + 1e-5)  # the 1e-5 is PEFT's
    modules = {}
    for key, e in tensors.items():
        if not key.endswith(".lora_E"):
            continue
        module = key.removesuffix(".lora_E")
        a, b = tensors.get(f"{module}.lora_A"), tensors.get(f"{module}.lora_B")
        if a is None or b is None or (a.ndim, b.ndim) != (2, 2) or not len(a) == b.shape[1] == e.numel() <= rank:
            raise InvalidAdapterConfig(f"{module[:120]} has no A, B and E of one rank up to {rank}.")
        scaled = a.float() * e.float().view(-1, 1)
        modules[module.removeprefix(PEFT_PREFIX)] = LoraModule(scaled, b, scale, embedding=False)
    return modules


def check_pair(name: str, pair: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of a module. Raises `InvalidAdapterConfig` if one of them is missing."""
    for side, other in (("A", "B"), ("B", "A")):
        if side not in pair:
            raise InvalidAdapterConfig(
                f"{name[:120]} has lora_{other}, but its lora_{side} is missing. Save the adapter again with both of "
                "them, with PEFT's save_pretrained."
            )
    return pair["A"], pair["B"]


def check_rank(rank: Any) -> int:
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise InvalidAdapterConfig(f"The rank is {str(rank)[:40]}; it must be a whole number from 1 to {MAX_RANK:,}.")
    return rank


def check_alpha(name: str, alpha: Any) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InvalidAdapterConfig(f"{name[:120]}: alpha is {str(alpha)[:40]}.")
    return alpha
