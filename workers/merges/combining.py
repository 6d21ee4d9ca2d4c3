"""Adapters made one by PEFT's `add_weighted_adapter`, a module at a time.

PEFT combines each module by itself, and reads nothing of the base but its modules' shapes, which A and B have as well.
So a skeleton of one module stands in for the base: no base is touched or needed, and between two modules there is time
to say how far it is, or to stop. Parts come as A, B and their scale (`lora_config`), whatever their configs say of
alpha, patterns or rsLoRA.
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

from catalog.merges.methods import Blend
from workers.finetunes.lora_config import LoraModule
from workers.process.cancellation import check

HERE, ELSEWHERE = "here", "elsewhere"  # the module, and one for parts that have none there
MERGED = "merged"
Modules = Mapping[str, LoraModule]


def combine(
    parts: Sequence[Modules],
    blend: Blend,
    *,
    device: str = "cpu",
    on_module: Callable[[float], None] = lambda _: None,
) -> Modules:
    """The merge of the parts' modules, of one rank r and scale 1: a (r, in) and b (out, r) in float32.

    The parts and the result are held in memory whole, and what a method makes of them for one module at a time.
    `on_module` is called with how much is done, from 0 to 1. Raises `Stopped`.
    """
    names = list(dict.fromkeys(name for part in parts for name in part))
    ranks = [max(module.a.shape[0] for module in part.values()) for part in parts]
    found: dict[str, LoraModule] = {}
    for number, name in enumerate(names, 1):
        check()
        with _seeded(f"{blend.seed} {name}", device):
            found[name] = _combine_one([part.get(name) for part in parts], ranks, blend, device)
        on_module(number / len(names))
    rank = max(module.a.shape[0] for module in found.values())
    return {name: _padded(module, rank) for name, module in found.items()}


def _combine_one(present: Sequence[LoraModule | None], ranks: Sequence[int], blend: Blend, device: str) -> LoraModule:
    """One module of all parts, whose greatest `ranks` are known; None stands where a part leaves it as it is."""
    first = next(each for each in present if each)
    embedding, shape = first.embedding, (first.b.shape[0], first.a.shape[1])  # (out, in)
    configs = [_config(each, rank) for each, rank in zip(present, ranks, strict=True)]
    tuned: Any = PeftModel(_skeleton(*shape, embedding, device), configs[0], "0")
    for number, config in enumerate(configs[1:], 1):
        tuned.add_adapter(str(number), config)
    layer = tuned.base_model.model[HERE]
    for number, each in enumerate(present):
        if each:
            _factors(layer, str(number), embedding, (each.a.to(device).float(), each.b.to(device).float()))
    tuned.base_model.add_weighted_adapter(
        [str(number) for number in range(len(present))],
        list(blend.weights.values()),
        MERGED,
        combination_type=blend.method,
        svd_rank=blend.rank or max(ranks),
        svd_full_matrices=False,
        density=blend.density,
    )
    a, b = _factors(layer, MERGED, embedding)
    return LoraModule(a.cpu(), b.cpu(), 1.0, embedding)


def _skeleton(out: int, inside: int, embedding: bool, device: str) -> nn.Module:
    """A module of that shape whose weights are one number seen many times."""
    layer = nn.Embedding(inside, out, device="meta") if embedding else nn.Linear(inside, out, bias=False, device="meta")
    zero = torch.zeros(1, 1, device=device).expand(layer.weight.shape)
    layer.weight = nn.Parameter(zero, requires_grad=False)
    return nn.ModuleDict({HERE: layer, ELSEWHERE: nn.Linear(1, 1, device=device)})


def _config(module: LoraModule | None, greatest: int) -> LoraConfig:
    rank, scale = (module.a.shape[0], module.scale) if module else (greatest, 1.0)
    return LoraConfig(
        r=rank,
        lora_alpha=rank * scale,  # type: ignore[arg-type]
        target_modules=[HERE if module else ELSEWHERE],
    )


def _factors(
    layer: Any, adapter: str, embedding: bool, values: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """A and B of an adapter in PEFT's layer, after they were set to `values` where these are given."""
    if embedding:
        held = layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
    else:
        held = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    if values:
        held[0].data, held[1].data = values
    return held[0].data, held[1].data


def _padded(module: LoraModule, rank: int) -> LoraModule:
    """The same change, written with a greater rank."""
    more = rank - module.a.shape[0]
    a, b = nn.functional.pad(module.a, (0, 0, 0, more)), nn.functional.pad(module.b, (0, more))
    return LoraModule(a.contiguous(), b.contiguous(), module.scale, module.embedding)


@contextmanager
def _seeded(text: str, device: str) -> Iterator[None]:
    """What is drawn meanwhile depends on the text alone, and nobody else's draws on it; PEFT is quiet."""
    with (
        torch.random.fork_rng(devices=[] if device == "cpu" else None),
        torch.no_grad(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # its advice is for whoever trains
        torch.manual_seed(int.from_bytes(sha256(text.encode()).digest()[:7]))
        yield
