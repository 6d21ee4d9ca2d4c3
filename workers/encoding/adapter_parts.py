"""An adapter's tensors, sorted by what becomes of them in the headless base; the whole weights among them put in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from catalog.errors import InvalidAdapterConfig, ShapeMismatch
from workers.encoding.output_head import NAMES as HEADS
from workers.finetunes.finetune import FineTune
from workers.finetunes.lora_config import EXPERT, KEY, PREFIX
from workers.finetunes.peft_kinds import KINDS

SHARED = "base_model."  # begins the names of tensors that all layers share
OTHER_HEADS = ("score", "classifier", "v_head")  # of classifiers and reward models; no feature reads through them
REPLACED = ".original_module."  # PEFT saves with an enlarged vocabulary also what the new one stands in for
STAND_IN = re.compile(r"\.(modules_to_save|ln_tuning_layers|base_layer)(?=\.)")
ROWS = re.compile(r"(.+?)(\.token_adapter)?\.trainable_tokens_delta")


@dataclass(frozen=True)
class Parts:
    """An adapter's tensors by what becomes of them; names are those of the headless base."""

    hooked: bool  # whether the low-rank pairs run in the hooks of plain LoRA; they are not among the tensors then
    weights: dict[str, Tensor] = field(default_factory=dict)  # in place of the base's
    rows: dict[str, Tensor] = field(default_factory=dict)  # in place of some rows of an embedding
    layers: dict[str, Tensor] = field(default_factory=dict)  # into PEFT's layers, by the names that PEFT saves them by
    targets: dict[str, str] = field(default_factory=dict)  # modules that get such layers; their names in the adapter
    experts: set[str] = field(default_factory=set)  # names of experts' projections
    head: dict[str, Tensor] = field(default_factory=dict)  # whatever belongs to the output head


def sort_parts(finetune: FineTune, model: PreTrainedModel) -> Parts:
    """Raises `ShapeMismatch` where the base has no place for a tensor."""
    parts = Parts(hooked=bool(finetune.modules) and not _more_than_added(finetune))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for key, tensor in finetune.tensors.items():
        name = key.removeprefix(PREFIX)
        first, _, rest = name.partition(".")
        low_rank = KEY.fullmatch(key) or key.endswith(".lora_E")
        if (parts.hooked and low_rank) or first in OTHER_HEADS or REPLACED in name:
            continue
        if first in HEADS:
            parts.head[STAND_IN.sub("", f".{rest}").removeprefix(".")] = tensor
            continue
        place = _place(name, model)
        weight = STAND_IN.sub("", place)
        if weight in parameters:
            parts.weights[weight] = _fitting(weight, tensor, model)
        elif match := ROWS.fullmatch(place):
            parts.rows[f"{match[1]}.weight"] = tensor
        elif place.startswith(SHARED):
            parts.layers[place] = tensor
        else:
            module = _module_of(place, finetune)
            if expert := EXPERT.search(module):
                parts.experts.add(expert[1])
            elif isinstance(_submodule(model, module), nn.Linear | nn.Embedding | Conv1D):
                parts.targets[module] = name[: len(name) - len(place) + len(module)]
            parts.layers[PREFIX + place] = tensor
    return parts


def put_weights(parts: Parts, config: Mapping[str, Any], model: nn.Module) -> None:
    """New objects in the places of the base's weights, which are left as they are; raises `InvalidAdapterConfig`."""
    changed = {name: _with_rows(model.get_parameter(name), rows, config) for name, rows in parts.rows.items()}
    for name, tensor in (*parts.weights.items(), *changed.items()):
        module, _, own = name.rpartition(".")
        model.get_submodule(module)._parameters[own] = nn.Parameter(tensor, requires_grad=False)


def tied_embedding(parts: Parts, config: Mapping[str, Any], model: PreTrainedModel) -> Tensor | None:
    """The embedding that an adapter changed where the output head is that embedding too, as PEFT has it.

    Trained rows and an enlarged vocabulary reach a tied head; a copy that `modules_to_save` made does not.
    """
    name = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    weight = f"{name}.weight"
    if not model.config.get_text_config().tie_word_embeddings:
        return None
    if weight in parts.rows:
        return _with_rows(model.get_parameter(weight), parts.rows[weight], config)
    copied = name.rpartition(".")[2] in (config.get("modules_to_save") or []) and not config.get("ensure_weight_tying")
    return None if copied else parts.weights.get(weight)


def _more_than_added(finetune: FineTune) -> bool:
    """Whether the low-rank pairs are part of something that only PEFT computes."""
    experts = any(EXPERT.search(name) for name in finetune.modules)
    return bool(finetune.config.get("use_dora") or finetune.config.get("lora_bias") or experts)


def _place(name: str, model: PreTrainedModel) -> str:
    """A tensor's name in the headless base, of which the adapter's author saw a causal LM."""
    name = re.sub(r"\.default(?=\.|$)", "", name)
    for prefix in (f"{model.base_model_prefix}.", "model.", ""):
        if name.startswith(prefix) and name.removeprefix(prefix).split(".")[0] in model._modules:
            return name.removeprefix(prefix)
    return name


def _module_of(place: str, finetune: FineTune) -> str:
    """The module that a tensor of PEFT's layers belongs to; raises `ShapeMismatch`."""
    kind = KINDS.get(finetune.config["peft_type"])
    module, found, _ = place.partition(f".{kind.leaf}") if kind else (place, "", "")
    if not found:
        raise ShapeMismatch(f"The base has no weight {place[:120]}.")
    return module.removesuffix(".base_layer")  # the second of two that share a module of experts


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ShapeMismatch(f"The base has no module {name[:120]}.") from None


def _fitting(name: str, tensor: Tensor, model: nn.Module) -> Tensor:
    """The tensor in its predecessor's dtype; raises `ShapeMismatch`. A vocabulary may have another size."""
    old = model.get_parameter(name)
    rows_vary = isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding)
    if tensor.ndim != old.ndim or tensor.shape[rows_vary:] != old.shape[rows_vary:]:
        raise ShapeMismatch(f"{name} is {list(old.shape)} in the base and {list(tensor.shape)} in the adapter.")
    return tensor.to(old.device, old.dtype)


def _with_rows(weight: Tensor, rows: Tensor, config: Mapping[str, Any]) -> Tensor:
    """An embedding with the rows that were trained alone; raises `InvalidAdapterConfig`."""
    indices = config.get("trainable_token_indices") or config.get("token_indices")
    if isinstance(indices, dict):
        indices = next(iter(indices.values()), None)
    numbers = indices if isinstance(indices, list) else []
    whole = all(type(index) is int and 0 <= index < len(weight) for index in numbers)
    if not whole or list(rows.shape) != [len(numbers), weight.shape[1]]:
        raise InvalidAdapterConfig("The trained tokens' indices do not fit their tensor or the vocabulary.")
    changed = weight.detach().clone()
    changed[numbers] = rows.to(changed)
    return changed
