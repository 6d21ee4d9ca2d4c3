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

from catalog.errors import InvalidAdapterConfig
from workers.finetunes.gathering import GATHER
from workers.finetunes.module_patterns import ModulePatterns

MAX_RANK = 8192
PEFT_PREFIX = "base_model.model."
LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.default)?(\.weight)?")
# parts of a mixture of experts, which are modules in some versions of transformers and parameters in others
MIXTURE_MODULE = re.compile(r"(^|\.)(experts|router|gate|input_linear|output_linear)(\.|$)")


@dataclass(frozen=True)
class LoraModule:
    """The low-rank change of one module: `y += scale * B A x`.

    For an embedding, the columns of `a` are the rows that are looked up, so both kinds have the same shapes. Those of a
    convolution have more dimensions; they can only be in parts that are left out.
    """

    a: torch.Tensor  # (r, in)
    b: torch.Tensor  # (out, r)
    scale: float
    embedding: bool


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
        _check_matrix(key, tensor)
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
        alpha = check_alpha(name, alphas.value(name, config.get("lora_alpha")))
        a, b = check_pair(name, pair)
        if a.shape[0] == rank == b.shape[1]:
            modules[name] = LoraModule(a, b, scaling(alpha, rank, config), name in embeddings)
        elif not of_parameters:
            raise _rank_error(name, a, b, rank)
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
    alpha = check_alpha("AdaLoRA", config.get("lora_alpha"))
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


def _rank_error(name: str, a: torch.Tensor, b: torch.Tensor, rank: int) -> InvalidAdapterConfig:
    shapes = f"{name[:120]} has an A of {list(a.shape)} and a B of {list(b.shape)}"
    if a.shape[0] != b.shape[1]:
        return InvalidAdapterConfig(f"{shapes}, which do not belong together: one of them may be {GATHER}")
    if MIXTURE_MODULE.search(name) and a.shape[0] % rank == 0:
        return InvalidAdapterConfig(
            f"{shapes}, and the config gives it rank {rank}. If these are the factors of several experts, "
            "target_parameters in adapter_config.json must name the parameter."
        )
    return InvalidAdapterConfig(
        f"{shapes}, and the config gives it rank {rank} (8 if it has no `r`): set `r` or `rank_pattern` to the trained "
        "rank."
    )


def _check_matrix(key: str, tensor: torch.Tensor) -> None:
    """Raises `InvalidAdapterConfig` if a tensor cannot be A or B. Those of convolutions have more dimensions."""
    if not tensor.is_floating_point():
        raise InvalidAdapterConfig(
            f"{key[:120]} is stored as {str(tensor.dtype).removeprefix('torch.')}, and integers without their scales "
            "are no adapter: save it in float32, bfloat16 or float16."
        )
    if tensor.ndim == 1:
        raise InvalidAdapterConfig(f"{key[:120]} is a vector of {len(tensor):,} numbers, no matrix: it may be {GATHER}")


def check_rank(rank: Any) -> int:
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise InvalidAdapterConfig(
            f"The rank in adapter_config.json is {repr(rank)[:40]}; write the trained rank, a whole number from 1 to "
            f"{MAX_RANK:,}."
        )
    return rank


def check_alpha(name: str, alpha: Any) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InvalidAdapterConfig(
            f"The alpha of {name[:120]} in adapter_config.json is {repr(alpha)[:40]}; write the number that it was "
            "trained with."
        )
    return alpha
