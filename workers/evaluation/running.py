"""Complete fine-tuned models, for uses beyond probe traces: generated answers and changes of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from catalog.errors import InvalidModelConfig, ShapeMismatch, UnsupportedAdapter
from workers.encoding.adapter_parts import sort_tensors
from workers.encoding.guard import BaseGuard, restored
from workers.encoding.lora_path import fit
from workers.encoding.model_loading import clean_view, load_config, load_headless
from workers.encoding.output_head import Head, load_head
from workers.encoding.parameter_lora import changed_stack
from workers.encoding.peft_path import attached, tuned_head
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import FineTune

LAYERS = (nn.Linear, nn.Embedding, Conv1D)


@contextmanager
def tuned(finetune: FineTune, base: ResidentBase, guard: BaseGuard) -> Iterator[tuple[PreTrainedModel, Head]]:
    """Yield the fine-tuned model without its output head, and the head.

    Raises `UnsupportedAdapter` for prompt adapters, which have no model of their own, and what loading and PEFT raise.
    """
    if finetune.path == "prompt":
        raise UnsupportedAdapter(f"{finetune.name} is a prompt and changes no weight.")
    if finetune.path == "full":
        with clean_view(finetune.folder, finetune.config) as view:
            config = load_config(view, InvalidModelConfig)
            model = load_headless(view, config, base.dtype, InvalidModelConfig, device_map={"": base.device})
            if not _same_parameters(model, base.model):
                raise ShapeMismatch(f"{finetune.name} does not have the parameters of its base.")
            yield model, load_head(view, model, base.device, InvalidModelConfig).truncate(base.head.vocabulary)
        return
    guard.arm()
    parts = sort_tensors(finetune, base.model)
    try:
        with restored(base.model), attached(parts, finetune, base.model):
            yield base.model, tuned_head(parts, finetune, base) or base.head
    finally:
        guard.check()


def weight_changes(finetune: FineTune, base: ResidentBase, guard: BaseGuard) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of each changed weight of the headless base, and tuned minus base, float32, in the weight's shape.

    For plain LoRA, the change is B A. For other adapters, the change of a layer is its output for the identity matrix,
    which is correct for every adapter that keeps the layer linear.
    """
    if finetune.path == "lora":
        for name, lora in fit(finetune.modules, base.model).items():
            product = lora.scale * (lora.b.float() @ lora.a.float())  # (out, in)
            transposed = isinstance(base.model.get_submodule(name), nn.Embedding | Conv1D)
            yield f"{name}.weight", product.T if transposed else product
        return
    before = dict(base.model.named_parameters())
    layers = {name: module for name, module in base.model.named_modules() if isinstance(module, LAYERS)}
    with tuned(finetune, base, guard) as (model, _), torch.inference_mode():
        for name, weight in before.items():
            change = _weight_change(weight, layers.get(name.rpartition(".")[0]), name, model)
            if change is not None and change.any():
                yield name, change


def _weight_change(weight: Tensor, layer: nn.Module | None, name: str, model: PreTrainedModel) -> Tensor | None:
    """Tuned minus base of one weight, or None if the weight is unchanged. Raises `UnsupportedAdapter`."""
    module_name, _, parameter = name.rpartition(".")
    module = model.get_submodule(module_name)
    if (stack := changed_stack(module, parameter)) is not None:
        return _difference(stack, weight)
    new = module._parameters.get(parameter)
    if new is not None and (layer is None or not _has_lora_hook(module)):
        return None if new is weight else _difference(new, weight)
    if layer is None:
        raise UnsupportedAdapter(f"The change that the adapter makes to {name} cannot be computed.")
    if isinstance(layer, nn.Embedding):
        return module(torch.arange(len(weight), device=weight.device)).float() - weight.float()
    transposed = isinstance(layer, Conv1D)
    width = layer.get_parameter("weight").shape[0 if transposed else 1]
    eye = torch.eye(width, device=weight.device)
    constant = module(torch.zeros_like(eye[:1]))  # (1, out)
    if parameter == "bias":
        return constant[0].float() - weight.float()
    after = module(eye) - constant  # (in, out)
    return (after if transposed else after.T).float() - weight.float()


def _same_parameters(model: nn.Module, base: nn.Module) -> bool:
    """Whether both have the same parameters, except for the size of the vocabulary."""
    tuned_weights, base_weights = dict(model.named_parameters()), dict(base.named_parameters())
    return tuned_weights.keys() == base_weights.keys() and all(
        weight.shape[1:] == base_weights[name].shape[1:] for name, weight in tuned_weights.items()
    )


def _has_lora_hook(module: nn.Module) -> bool:
    return any(type(hook).__module__ == "workers.encoding.lora_path" for hook in module._forward_hooks.values())


def _difference(new: Tensor, old: Tensor) -> Tensor:
    """New minus old in the shape of `old`: the fine-tune may have a larger or a smaller vocabulary."""
    overlap = tuple(slice(0, min(sizes)) for sizes in zip(new.shape, old.shape, strict=True))
    change = torch.zeros(old.shape)
    change[overlap] = (new[overlap].float() - old[overlap].float()).cpu()
    return change
