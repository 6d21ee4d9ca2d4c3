"""Whole tuned models, for what reads more than a probe's trace: their answers, and the changes of their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from catalog.errors import InvalidModelConfig, ShapeMismatch, UnsupportedAdapter
from workers.encoding.adapter_parts import sort_parts
from workers.encoding.guard import BaseGuard, restored
from workers.encoding.lora_path import fit
from workers.encoding.model_loading import clean_view, load_config, load_headless
from workers.encoding.output_head import Head, load_head
from workers.encoding.peft_path import attached, tuned_head
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import FineTune

LAYERS = (nn.Linear, nn.Embedding, Conv1D)


@contextmanager
def tuned(finetune: FineTune, base: ResidentBase, guard: BaseGuard) -> Iterator[tuple[PreTrainedModel, Head]]:
    """While it lasts, a model that is the fine-tuned one, with its output head.

    Raises `UnsupportedAdapter` for prompts, which are no model, and what loading and PEFT raise.
    """
    if finetune.path == "prompt":
        raise UnsupportedAdapter(f"{finetune.name} is a prompt and changes no weight.")
    if finetune.path == "full":
        with _view(finetune) as view:
            config = load_config(view, finetune.shapes, InvalidModelConfig)
            placed = {"device_map": {"": base.device}}
            model = load_headless(view, config, base.dtype, InvalidModelConfig, **placed)
            if not _alike(model, base.model):
                raise ShapeMismatch(f"{finetune.name} is not built like its base.")
            yield model, load_head(view, model, base.device).cut(base.vocabulary)
        return
    guard.arm()
    parts = sort_parts(finetune, base.model)
    try:
        with restored(base.model), attached(parts, finetune, base.model):
            yield base.model, tuned_head(parts, finetune, base) or base.head
    finally:
        guard.check()


def weight_changes(finetune: FineTune, base: ResidentBase, guard: BaseGuard) -> Iterator[tuple[str, Tensor]]:
    """Each changed weight of the headless base by name, and tuned minus base, float32, in the weight's own shape.

    Plain LoRA gives B A; of other adapters a layer's change is read off by sending the identity through it, which
    holds whatever they do inside as long as the layer stays linear.
    """
    if finetune.path == "lora":
        for name, lora in fit(finetune.modules, base.model).items():
            product = lora.scale * (lora.b.float() @ lora.a.float())  # (out, in)
            lies = isinstance(base.model.get_submodule(name), nn.Embedding | Conv1D)
            yield f"{name}.weight", product.T if lies else product
        return
    before = dict(base.model.named_parameters())
    plain = {name: module for name, module in base.model.named_modules() if isinstance(module, LAYERS)}
    with tuned(finetune, base, guard) as (model, _), torch.inference_mode():
        for name, weight in before.items():
            change = _change(weight, plain.get(name.rpartition(".")[0]), name, model)
            if change is not None and change.any():
                yield name, change


def _change(weight: Tensor, layer: nn.Module | None, name: str, model: PreTrainedModel) -> Tensor | None:
    """Tuned minus base of one weight, None where nobody touched it."""
    module_name, _, own = name.rpartition(".")
    module = model.get_submodule(module_name)
    new = module._parameters.get(own)
    if new is not None and (layer is None or not _hooked(module)):
        return None if new is weight else _overlap(new, weight)
    if layer is None:
        raise UnsupportedAdapter(f"The adapter changes {name} in a way that cannot be read off.")
    if isinstance(layer, nn.Embedding):
        return module(torch.arange(len(weight), device=weight.device)).float() - weight.float()
    transposed = isinstance(layer, Conv1D)
    width = layer.get_parameter("weight").shape[0 if transposed else 1]
    eye = torch.eye(width, device=weight.device)
    constant = module(torch.zeros_like(eye[:1]))  # (1, out)
    if own == "bias":
        return constant[0].float() - weight.float()
    after = module(eye) - constant  # (in, out)
    return (after if transposed else after.T).float() - weight.float()


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether they have the same parameters, but for the size of the vocabulary."""
    mine, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    return mine.keys() == theirs.keys() and all(mine[name].shape[1:] == theirs[name].shape[1:] for name in mine)


def _hooked(module: nn.Module) -> bool:
    return any(type(hook).__module__ == "workers.encoding.lora_path" for hook in module._forward_hooks.values())


def _overlap(new: Tensor, old: Tensor) -> Tensor:
    """The difference as far as both go: a vocabulary may have been enlarged."""
    size = tuple(slice(0, min(pair)) for pair in zip(new.shape, old.shape, strict=True))
    change = torch.zeros(old.shape)
    change[size] = (new[size].float() - old[size].float()).cpu()
    return change


@contextmanager
def _view(finetune: FineTune) -> Iterator[Path]:
    names = [path.name for path in finetune.folder.iterdir()]
    with clean_view(finetune.folder, names, finetune.config) as view:
        yield view
