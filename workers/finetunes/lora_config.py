"""What a LoRA adapter's config and tensors say, as one (A, B, scale) a module.

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
PREFIX = "base_model.model."
KEY = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.default)?(\.weight)?")
# an expert as a module of its own, the way transformers 4 had them; now they are stacked, and PEFT knows how
EXPERT = re.compile(r"\.experts\.\d+\.(\w+)$")
UNSUPPORTED = (  # settings that change the forward in ways that no path here follows
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)
# the others (PiSSA, OLoRA, CorDA, LoftQ and their like) rewrite the base's weights before A and B are added to them
INITS_THAT_LEAVE_THE_BASE = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraModule:
    """The low-rank change of one module: `y += scale * B A x`.

    For an embedding `a` holds the looked-up rows as columns, so both kinds have the same shapes.
    """

    a: torch.Tensor  # (r, in)
    b: torch.Tensor  # (out, r)
    scale: float
    embedding: bool


def check_lora(config: Mapping[str, Any]) -> None:
    """Raises `UnsupportedAdapter` where A and B do not mean what they mean in LoRA."""
    init = config.get("init_lora_weights")
    if init not in INITS_THAT_LEAVE_THE_BASE:
        raise UnsupportedAdapter(
            f"The adapter was made with init_lora_weights={str(init)[:40]!r}, which also changed its base's weights: "
            "convert it to a plain LoRA (PEFT's `path_initial_model_for_weight_conversion`)."
        )
    for setting in UNSUPPORTED:
        if config.get(setting):
            raise UnsupportedAdapter(f"LoRA with {setting} cannot be run.")


def parse_lora(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, LoraModule]:
    """Modules by the name that the adapter gives them, without PEFT's `base_model.model.`; other tensors are left out.

    Raises `InvalidAdapterConfig` on a rank or alpha that makes no sense, and on a half without its other half.
    """
    halves: dict[str, dict[str, torch.Tensor]] = {}
    embeddings = set()
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            continue
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise InvalidAdapterConfig(f"{key[:120]} is not a matrix of floats.")
        module = match["module"].removeprefix(PREFIX)
        halves.setdefault(module, {})[match["side"]] = tensor
        if match["embedding"]:
            embeddings.add(module)
    check_rank(config.get("r"))
    ranks, alphas = ModulePatterns(config, "rank_pattern"), ModulePatterns(config, "alpha_pattern")
    modules = {}
    for name, half in halves.items():
        rank = check_rank(ranks.value(name, config.get("r")))
        alpha = check_alpha(name, alphas.value(name, config.get("lora_alpha", 8)))
        # rsLoRA, arXiv 2312.03732 section 3
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        modules[name] = _module(name, half, rank, scale, name in embeddings)
    return modules


def parse_adalora(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, LoraModule]:
    """AdaLoRA, `y += alpha / init_r * B diag(E) A x` (arXiv 2303.10512 section 3.1), as the LoRA that it is.

    Raises `InvalidAdapterConfig`.
    """
    rank = check_rank(config.get("init_r"))
    alpha = check_alpha("AdaLoRA", config.get("lora_alpha", 8))
    scale = (alpha if alpha > 0 else rank) / (rank + 1e-5)  # the 1e-5 is PEFT's
    found = {}
    for key, e in tensors.items():
        if not key.endswith(".lora_E"):
            continue
        module = key.removesuffix(".lora_E")
        a, b = tensors.get(f"{module}.lora_A"), tensors.get(f"{module}.lora_B")
        if a is None or b is None or (a.ndim, b.ndim) != (2, 2) or not len(a) == b.shape[1] == e.numel() <= rank:
            raise InvalidAdapterConfig(f"{module[:120]} has no A, B and E of one rank up to {rank}.")
        scaled = a.float() * e.float().view(-1, 1)
        found[module.removeprefix(PREFIX)] = LoraModule(scaled, b, scale, embedding=False)
    return found


def _module(name: str, half: Mapping[str, torch.Tensor], rank: int, scale: float, embedding: bool) -> LoraModule:
    if set(half) != {"A", "B"}:
        raise InvalidAdapterConfig(f"{name[:120]} has lora_{next(iter(half))} without its other half.")
    if half["A"].shape[0] != rank or half["B"].shape[1] != rank:
        raise InvalidAdapterConfig(
            f"{name[:120]}: the config says rank {rank}, A is {list(half['A'].shape)} and B {list(half['B'].shape)}."
        )
    return LoraModule(half["A"], half["B"], scale, embedding)


def check_rank(rank: Any) -> int:
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise InvalidAdapterConfig(f"The rank is {str(rank)[:40]}; it must be a whole number from 1 to {MAX_RANK:,}.")
    return rank


def check_alpha(name: str, alpha: Any) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InvalidAdapterConfig(f"{name[:120]}: alpha is {str(alpha)[:40]}.")
    return alpha
