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

from catalog.errors import InvalidAdapterConfig

MAX_RANK = 8192
PREFIX = "base_model.model."
KEY = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.default)?(\.weight)?")
# a repeated group, or more than three repetitions: the sender could make the match take hours
SLOW_PATTERN = re.compile(r"\)[*+{?]|([*+{].*){4}", re.DOTALL)
MAX_PATTERN = 400  # characters
EXTRAS = (  # settings that make a LoRA more than A and B; such an adapter goes through PEFT
    "modules_to_save",
    "lora_bias",
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "target_parameters",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)


@dataclass(frozen=True)
class LoraModule:
    """The low-rank change of one module: `y += scale * B A x`.

    For an embedding `a` holds the looked-up rows as columns, so both kinds have the same shapes.
    """

    a: torch.Tensor  # (r, in)
    b: torch.Tensor  # (out, r)
    scale: float
    embedding: bool


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether A and B are all that the adapter changes."""
    # PiSSA, OLoRA, LoftQ and their like rewrite the base's weights before A and B are added to them
    leaves_base = config.get("init_lora_weights") in (None, True, False, "gaussian", "eva", "orthogonal")
    return leaves_base and config.get("bias") in (None, "none") and not any(config.get(name) for name in EXTRAS)


def parse_lora(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, LoraModule]:
    """Modules by the name that the adapter gives them, without PEFT's `base_model.model.`.

    Raises `InvalidAdapterConfig` on a rank or alpha that makes no sense, a half without its other half, and tensors
    that are no part of a plain LoRA.
    """
    halves: dict[str, dict[str, torch.Tensor]] = {}
    embeddings = set()
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None or tensor.ndim != 2 or not tensor.is_floating_point():
            raise InvalidAdapterConfig(f"{key[:120]} is no part of a plain LoRA adapter.")
        module = match["module"].removeprefix(PREFIX)
        halves.setdefault(module, {})[match["side"]] = tensor
        if match["embedding"]:
            embeddings.add(module)
    if not halves:
        raise InvalidAdapterConfig("The adapter's weights hold no LoRA tensors.")
    _check_rank(config.get("r"))
    return {name: _module(config, name, half, name in embeddings) for name, half in halves.items()}


def _module(config: Mapping[str, Any], name: str, half: Mapping[str, torch.Tensor], embedding: bool) -> LoraModule:
    if set(half) != {"A", "B"}:
        raise InvalidAdapterConfig(f"{name[:120]} has lora_{next(iter(half))} without its other half.")
    rank = _check_rank(_pattern(config, "rank_pattern", name, config.get("r")))
    if half["A"].shape[0] != rank or half["B"].shape[1] != rank:
        raise InvalidAdapterConfig(
            f"{name[:120]}: the config says rank {rank}, the tensors are {list(half['A'].shape)} and {list(half['B'].shape)}."
        )
    alpha = _pattern(config, "alpha_pattern", name, config.get("lora_alpha", 8))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InvalidAdapterConfig(f"{name[:120]}: alpha is {str(alpha)[:40]}.")
    # rsLoRA, arXiv 2312.03732 section 3
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LoraModule(half["A"], half["B"], scale, embedding)


def _pattern(config: Mapping[str, Any], setting: str, name: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a module's name, as PEFT looks it up."""
    patterns = config.get(setting) or {}
    if not isinstance(patterns, dict):
        raise InvalidAdapterConfig(f"{setting} is not a JSON object.")
    for pattern, value in patterns.items():
        if len(pattern) > MAX_PATTERN or SLOW_PATTERN.search(pattern):
            raise InvalidAdapterConfig(f"{setting}: {pattern[:80]!r} is too complex a pattern to be matched safely.")
        try:
            if re.match(rf"(.*\.)?({pattern})$", name):
                return value
        except re.error as error:
            raise InvalidAdapterConfig(f"{setting}: {pattern[:80]!r} is not a pattern.") from error
    return default


def _check_rank(rank: Any) -> int:
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise InvalidAdapterConfig(f"The rank is {str(rank)[:40]}; it must be a whole number from 1 to {MAX_RANK:,}.")
    return rank
