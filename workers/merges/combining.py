"""Merges adapters by PEFT's `add_weighted_adapter`, one module at a time.

PEFT combines each module separately, and reads only the shapes of the base's modules, which follow from A and B. So a
skeleton with a single module stands in for the base: the base itself is not needed, and progress and cancellation are
handled between two modules. Parts are given as A, B and their scale (`LoraModule`), in which the alpha, patterns and
rsLoRA of their configs are already applied.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn

from catalog.merges.methods import MergeSpec
from catalog.merges.parts import result_rank
from workers.finetunes.lora_config import LoraModule
from workers.process.cancellation import raise_if_cancelled

TARGET, UNUSED = "target", "unused"  # modules of the skeleton: parts without this module adapt the unused one
MERGED = "merged"
Modules = Mapping[str, LoraModule]


def combine(
    parts: Sequence[Modules],
    spec: MergeSpec,
    *,
    device: str = "cpu",
    on_module: Callable[[float], None] = lambda _: None,
) -> Modules:
    """The merged modules, all of the same rank r and with scale 1: a (r, in) and b (out, r) in float32.

    Memory holds the parts, the result, and the intermediate values of one module. `on_module` is called with the share
    of the modules that is done, from 0 to 1. Raises `Cancelled`.
    """
    names = list(dict.fromkeys(name for part in parts for name in part))
    max_ranks = [max(module.a.shape[0] for module in part.values()) for part in parts]
    merged: dict[str, LoraModule] = {}
    for number, name in enumerate(names, 1):
        raise_if_cancelled()
        with _seeded(f"{spec.seed} {name}", device):
            merged[name] = _combine_module([part.get(name) for part in parts], max_ranks, spec, device)
        on_module(number / len(names))
    rank = max(module.a.shape[0] for module in merged.values())
    return {name: _pad_rank(module, rank) for name, module in merged.items()}


def max_result_bytes(parts: Sequence[Modules], spec: MergeSpec) -> int:
    """The bytes that the modules returned by `combine` have at most."""
    ranks = [{module.a.shape[0] for module in part.values()} for part in parts]
    rank = result_rank(spec, [sorted(part_ranks) for part_ranks in ranks])
    sizes = {name: module.a.shape[1] + module.b.shape[0] for part in parts for name, module in part.items()}
    return rank * sum(sizes.values()) * torch.float32.itemsize


def _combine_module(
    modules: Sequence[LoraModule | None], max_ranks: Sequence[int], spec: MergeSpec, device: str
) -> LoraModule:
    """Merge one module of all parts, None for parts that do not adapt it. `max_ranks` are the highest of each part."""
    first = next(module for module in modules if module)
    embedding, shape = first.embedding, (first.b.shape[0], first.a.shape[1])  # (out, in)
    configs = [_config(module, rank) for module, rank in zip(modules, max_ranks, strict=True)]
    tuned: Any = PeftModel(_skeleton(*shape, embedding, device), configs[0], "0")
    for number, config in enumerate(configs[1:], 1):
        tuned.add_adapter(str(number), config)
    layer = tuned.base_model.model[TARGET]
    for number, module in enumerate(modules):
        if module:
            _factors(layer, str(number), embedding, (module.a.to(device).float(), module.b.to(device).float()))
    tuned.base_model.add_weighted_adapter(
        [str(number) for number in range(len(modules))],
        list(spec.weights.values()),
        MERGED,
        combination_type=spec.method,
        svd_rank=spec.rank or max(max_ranks),
        svd_full_matrices=False,
        density=spec.density,
    )
    a, b = _factors(layer, MERGED, embedding)
    return LoraModule(a.cpu(), b.cpu(), 1.0, embedding)


def _skeleton(out_size: int, in_size: int, embedding: bool, device: str) -> nn.Module:
    """A model whose target module has this shape. Its weight is an expanded zero, which takes no memory."""
    layer = (
        nn.Embedding(in_size, out_size, device="meta")
        if embedding
        else nn.Linear(in_size, out_size, bias=False, device="meta")
    )
    zero = torch.zeros(1, 1, device=device).expand(layer.weight.shape)
    layer.weight = nn.Parameter(zero, requires_grad=False)
    return nn.ModuleDict({TARGET: layer, UNUSED: nn.Linear(1, 1, device=device)})


def _config(module: LoraModule | None, max_rank: int) -> LoraConfig:
    rank, scale = (module.a.shape[0], module.scale) if module else (max_rank, 1.0)
    return LoraConfig(
        r=rank,
        lora_alpha=rank * scale,  # type: ignore[arg-type]
        target_modules=[TARGET if module else UNUSED],
    )


def _factors(
    layer: Any, adapter: str, embedding: bool, values: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """A and B of an adapter in PEFT's layer. If `values` are given, they are set first."""
    if embedding:
        a, b = layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
    else:
        a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    if values:
        a.data, b.data = values
    return a.data, b.data


def _pad_rank(module: LoraModule, rank: int) -> LoraModule:
    """The same module with a higher rank, padded with zeros."""
    padding = rank - module.a.shape[0]
    a, b = nn.functional.pad(module.a, (0, 0, 0, padding)), nn.functional.pad(module.b, (0, padding))
    return LoraModule(a.contiguous(), b.contiguous(), module.scale, module.embedding)


@contextmanager
def _seeded(text: str, device: str) -> Iterator[None]:
    """Seed torch's generator by a text and restore its state afterwards; PEFT's warnings are silenced."""
    with (
        torch.random.fork_rng(devices=[] if device == "cpu" else None),
        torch.no_grad(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # they concern training
        torch.manual_seed(int.from_bytes(sha256(text.encode()).digest()[:7]))
        yield
