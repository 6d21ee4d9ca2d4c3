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
# an expert as a separate module, as in transformers 4; later versions stack experts
EXPERT_MODULE = re.compile(r"\.experts\.\d+\.(\w+)$")
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
    modules = {}
    for name, pair in pairs.items():
        rank = check_rank(ranks.value(name, config.get("r")))
        alpha = check_alpha(name, alphas.value(name, config.get("lora_alpha", 8)))
        # rsLoRA, arXiv 2312.03732 section 3
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        modules[name] = _module(name, pair, rank, scale, name in embeddings)
    return modules


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


def _module(name: str, pair: Mapping[str, torch.Tensor], rank: int, scale: float, embedding: bool) -> LoraModule:
    if set(pair) != {"A", "B"}:
        raise InvalidAdapterConfig(f"{name[:120]} has only lora_{next(iter(pair))} of the pair.")
    if pair["A"].shape[0] != rank or pair["B"].shape[1] != rank:
        raise InvalidAdapterConfig(
            f"{name[:120]}: the config says rank {rank}, A is {list(pair['A'].shape)} and B {list(pair['B'].shape)}."
        )
    return LoraModule(pair["A"], pair["B"], scale, embedding)


def check_rank(rank: Any) -> int:
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise InvalidAdapterConfig(f"The rank is {str(rank)[:40]}; it must be a whole number from 1 to {MAX_RANK:,}.")
    return rank


def check_alpha(name: str, alpha: Any) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InvalidAdapterConfig(f"{name[:120]}: alpha is {str(alpha)[:40]}.")
    return alpha
