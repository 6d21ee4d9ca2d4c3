"""An adapter's tensors, sorted by how they change the headless base, and the replacement of whole weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from catalog.errors import InvalidAdapterConfig, ShapeMismatch
from workers.encoding.output_head import HEAD_NAMES
from workers.finetunes.finetune import FineTune
from workers.finetunes.lora_config import EXPERT_MODULE, LORA_KEY, PEFT_PREFIX
from workers.finetunes.peft_kinds import KINDS

SHARED_PREFIX = "base_model."  # of tensors that all layers share
OTHER_HEADS = ("score", "classifier", "v_head")  # of classifiers and reward models; no feature reads them
ORIGINAL_MODULE = ".original_module."  # PEFT also saves the original of an enlarged vocabulary
WRAPPER = re.compile(r"\.(modules_to_save|ln_tuning_layers|base_layer)(?=\.)")
TRAINED_ROWS = re.compile(r"(.+?)(\.token_adapter)?\.trainable_tokens_delta")


@dataclass(frozen=True)
class AdapterParts:
    """An adapter's tensors by their role; names are those of the headless base."""

    hooked: bool  # whether the low-rank pairs run in the hooks of plain LoRA; they are then not in `layers`
    weights: dict[str, Tensor] = field(default_factory=dict)  # they replace the base's
    rows: dict[str, Tensor] = field(default_factory=dict)  # they replace rows of an embedding
    layers: dict[str, Tensor] = field(default_factory=dict)  # for PEFT's layers, by the names that PEFT saves
    targets: dict[str, str] = field(default_factory=dict)  # modules that get PEFT's layers -> names in the adapter
    experts: set[str] = field(default_factory=set)  # names of the experts' projections
    head: dict[str, Tensor] = field(default_factory=dict)  # of the output head


def sort_tensors(finetune: FineTune, model: PreTrainedModel, *, hooks: bool = True) -> AdapterParts:
    """Sort an adapter's tensors. Without `hooks`, all low-rank pairs go into PEFT's layers.

    Raises `ShapeMismatch` if the base has no module for a tensor.
    """
    parts = AdapterParts(hooked=hooks and bool(finetune.modules) and not _needs_peft(finetune))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for key, tensor in finetune.tensors.items():
        name = key.removeprefix(PEFT_PREFIX)
        first, _, rest = name.partition(".")
        low_rank = LORA_KEY.fullmatch(key) or key.endswith(".lora_E")
        if (parts.hooked and low_rank) or first in OTHER_HEADS or ORIGINAL_MODULE in name:
            continue
        if first in HEAD_NAMES:
            parts.head[WRAPPER.sub("", f".{rest}").removeprefix(".")] = tensor
            continue
        base_name = _base_name(name, model)
        weight = WRAPPER.sub("", base_name)
        if weight in parameters:
            parts.weights[weight] = _fitting(weight, tensor, model)
        elif match := TRAINED_ROWS.fullmatch(base_name):
            parts.rows[f"{match[1]}.weight"] = tensor
        elif base_name.startswith(SHARED_PREFIX):
            parts.layers[base_name] = tensor
        else:
            module = _module_of(base_name, finetune)
            if expert := EXPERT_MODULE.search(module):
                parts.experts.add(expert[1])
            elif isinstance(_submodule(model, module), nn.Linear | nn.Embedding | Conv1D):
                parts.targets[module] = name[: len(name) - len(base_name) + len(module)]
            parts.layers[PEFT_PREFIX + base_name] = tensor
    return parts


def replace_weights(parts: AdapterParts, config: Mapping[str, Any], model: nn.Module) -> None:
    """Replace weights of the base by new objects, without modifying the old ones. Raises `InvalidAdapterConfig`."""
    changed = {name: _with_rows(model.get_parameter(name), rows, config) for name, rows in parts.rows.items()}
    for name, tensor in (*parts.weights.items(), *changed.items()):
        module, _, attribute = name.rpartition(".")
        model.get_submodule(module)._parameters[attribute] = nn.Parameter(tensor, requires_grad=False)


def tied_embedding(parts: AdapterParts, config: Mapping[str, Any], model: PreTrainedModel) -> Tensor | None:
    """The changed embedding if the output head is tied to it, with PEFT's rules.

    Trained rows and an enlarged vocabulary change a tied head; a copy made by `modules_to_save` does not.
    """
    name = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    weight = f"{name}.weight"
    if not model.config.get_text_config().tie_word_embeddings:
        return None
    if weight in parts.rows:
        return _with_rows(model.get_parameter(weight), parts.rows[weight], config)
    copied = name.rpartition(".")[2] in (config.get("modules_to_save") or []) and not config.get("ensure_weight_tying")
    return None if copied else parts.weights.get(weight)


def _needs_peft(finetune: FineTune) -> bool:
    """Whether only PEFT can compute the low-rank pairs (DoRA, biases, experts)."""
    experts = any(EXPERT_MODULE.search(name) for name in finetune.modules)
    return bool(finetune.config.get("use_dora") or finetune.config.get("lora_bias") or experts)


def _base_name(name: str, model: PreTrainedModel) -> str:
    """A tensor's name in the headless base; in the adapter it has its name in the causal LM."""
    name = re.sub(r"\.default(?=\.|$)", "", name)
    for prefix in (f"{model.base_model_prefix}.", "model.", ""):
        if name.startswith(prefix) and name.removeprefix(prefix).split(".")[0] in model._modules:
            return name.removeprefix(prefix)
    return name


def _module_of(base_name: str, finetune: FineTune) -> str:
    """The module of a tensor of PEFT's layers. Raises `ShapeMismatch`."""
    kind = KINDS.get(finetune.config["peft_type"])
    module, separator, _ = base_name.partition(f".{kind.leaf}") if kind else (base_name, "", "")
    if not separator:
        raise ShapeMismatch(f"The base has no weight {base_name[:120]}.")
    return module.removesuffix(".base_layer")  # the second of two adapters on one module of experts


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ShapeMismatch(f"The base has no module {name[:120]}.") from None


def _fitting(name: str, tensor: Tensor, model: nn.Module) -> Tensor:
    """The tensor in the dtype of the weight it replaces. Raises `ShapeMismatch`, except for a changed vocabulary."""
    base_weight = model.get_parameter(name)
    rows_vary = isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding)
    if tensor.ndim != base_weight.ndim or tensor.shape[rows_vary:] != base_weight.shape[rows_vary:]:
        raise ShapeMismatch(f"{name} is {list(base_weight.shape)} in the base and {list(tensor.shape)} in the adapter.")
    return tensor.to(base_weight.device, base_weight.dtype)


def _with_rows(weight: Tensor, rows: Tensor, config: Mapping[str, Any]) -> Tensor:
    """An embedding with its trained rows replaced. Raises `InvalidAdapterConfig`."""
    indices = config.get("trainable_token_indices") or config.get("token_indices")
    if isinstance(indices, dict):
        indices = next(iter(indices.values()), None)
    row_numbers = indices if isinstance(indices, list) else []
    valid = all(type(index) is int and 0 <= index < len(weight) for index in row_numbers)
    if not valid or list(rows.shape) != [len(row_numbers), weight.shape[1]]:
        raise InvalidAdapterConfig("The trained tokens' indices do not fit their tensor or the vocabulary.")
    changed = weight.detach().clone()
    changed[row_numbers] = rows.to(changed)
    return changed
