"""An adapter's tensors, sorted by how they change the headless base, and the replacement of whole weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from catalog.errors import InvalidAdapterConfig, ShapeMismatch, UnsupportedAdapter
from workers.encoding.module_names import TASK_HEADS, TRY_OTHER_BASE, ModuleNames, head_part, submodule
from workers.encoding.parameter_lora import LowRankPairs, ParameterNames, sort_pairs
from workers.finetunes.finetune import FineTune
from workers.finetunes.lora_config import LORA_KEY, MIXTURE_MODULE, PEFT_PREFIX, target_parameters
from workers.finetunes.peft_kinds import KINDS
from workers.finetunes.tensor_names import SHARED_PREFIX

ORIGINAL_MODULE = ".original_module."  # PEFT also saves the original of an enlarged vocabulary
WRAPPER = re.compile(r"\.(modules_to_save|ln_tuning_layers|token_adapter|base_layer)(?=\.)")
OTHER_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>E|magnitude_vector)(\.default)?(\.weight)?")
QUESTION_HEAD, QUESTION_PREFIX = "qa_outputs", "transformer"  # of transformers' classes for question answering
EMBEDDING_NAMES = ("embed_tokens", "wte", "embed_in", "word_embeddings", "embeddings")
TRAINED_ROWS = re.compile(r"(.+?)(\.token_adapter)?\.trainable_tokens_delta")


@dataclass(frozen=True)
class TrainedRows:
    """Rows of an embedding or an output head that replace those of the base. The tokens may be new ones."""

    tokens: list[int]  # N
    values: Tensor  # (N, H)

    def replaced(self, weight: Tensor) -> Tensor:
        """A copy of `weight`, (V, H), with the trained rows of the tokens that it has."""
        known = [number for number, token in enumerate(self.tokens) if token < len(weight)]
        changed = weight.detach().clone()
        changed[[self.tokens[number] for number in known]] = self.values[known].to(changed)
        return changed


@dataclass(frozen=True)
class AdapterParts:
    """An adapter's tensors by their role; names are those of the headless base."""

    pairs: LowRankPairs  # of linear layers and embeddings, and of other parameters
    plain_lora: bool  # whether pairs only add their product
    hooked: bool  # whether those of layers run in the hooks of plain LoRA; they are then not in `layers`
    weights: dict[str, Tensor] = field(default_factory=dict)  # they replace the base's
    rows: dict[str, TrainedRows] = field(default_factory=dict)  # of the embedding with this weight
    layers: dict[str, Tensor] = field(default_factory=dict)  # for PEFT's layers, by the names that PEFT saves
    targets: dict[str, str] = field(default_factory=dict)  # modules that get PEFT's layers -> names in the adapter
    head: dict[str, Tensor] = field(default_factory=dict)  # of the output head
    head_rows: list[TrainedRows] = field(default_factory=list)  # of the output head, at most one
    notes: list[str] = field(default_factory=list)  # sentences for users about what is left out


def sort_tensors(finetune: FineTune, model: PreTrainedModel, *, hooks: bool = True) -> AdapterParts:
    """Sort an adapter's tensors. Without `hooks`, the low-rank pairs of layers go into PEFT's layers.

    Raises `InvalidAdapterConfig`, `ShapeMismatch` if the base has no module for a tensor, `UnsupportedAdapter`.
    """
    config = finetune.config
    tensors = {key.removeprefix(PEFT_PREFIX): finetune.tensors[key] for key in finetune.tensors}
    names = ModuleNames(model)
    heads = {head for head in map(_first, tensors) if _is_task_head(head, config, names)}
    if QUESTION_HEAD in heads:
        _check_question_class(tensors, model)
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if _first(name) not in heads and ORIGINAL_MODULE not in f".{name}"
    }
    base_names = names.find_all(name for name in tensors if not name.startswith(SHARED_PREFIX))
    base_names |= {name: name for name in tensors if name.startswith(SHARED_PREFIX) or head_part(name) is not None}
    tensors = {name: tensor for name, tensor in tensors.items() if name in base_names}
    places = ParameterNames(model, target_parameters(config))
    pairs = sort_pairs(_low_rank_pairs(finetune, tensors), finetune, places, lambda name: names.find(name) or name)
    is_lora = config["peft_type"] in ("LORA", "ADALORA")  # in other types, a tensor of LoRA is an error
    plain = is_lora and not (config.get("use_dora") or config.get("lora_bias"))
    only_in_hooks = config["peft_type"] not in KINDS  # AdaLoRA
    parts = AdapterParts(pairs, plain_lora=plain, hooked=plain and (hooks or only_in_hooks))
    parts.notes.extend(
        f"The adapter's {head[:40]} was left out, because no feature reads it." for head in sorted(heads)
    )
    for name, tensor in tensors.items():
        factor = LORA_KEY.fullmatch(name) or OTHER_FACTOR.fullmatch(name)
        of_head = head_part(name) is not None
        if factor and (parts.hooked or factor["module"] in pairs.of_parameters or (plain and of_head)):
            continue
        if of_head:
            _sort_head(name, tensor, config, parts)
            continue
        base_name = base_names[name]
        if factor and (layer := pairs.layer_names.get(factor["module"])):
            base_name = layer + name.removeprefix(factor["module"])
        _sort_tensor(name, base_name, tensor, finetune, places, parts)
    for weight, rows in parts.rows.items():
        vocabulary = len(parts.weights.get(weight, model.get_parameter(weight)))
        if unknown := sum(token >= vocabulary for token in rows.tokens):
            parts.notes.append(f"{unknown:,} trained tokens were left out, because the base does not have them.")
    return parts


def _sort_head(name: str, tensor: Tensor, config: Mapping[str, Any], parts: AdapterParts) -> None:
    if TRAINED_ROWS.fullmatch(name):
        parts.head_rows.append(_trained_rows(name, tensor, config))
    else:
        parts.head[WRAPPER.sub("", f".{head_part(name)}").removeprefix(".")] = tensor


def _sort_tensor(
    name: str, base_name: str, tensor: Tensor, finetune: FineTune, places: ParameterNames, parts: AdapterParts
) -> None:
    model = places.model
    weight = places.weight(WRAPPER.sub("", base_name))
    if weight is not None:
        parts.weights[weight] = _fitting(weight, tensor, model)
    elif match := TRAINED_ROWS.fullmatch(base_name):
        submodule(model, match[1])
        parts.rows[f"{match[1]}.weight"] = _trained_rows(name, tensor, finetune.config)
    elif base_name.startswith(SHARED_PREFIX):
        parts.layers[base_name] = tensor
    else:
        module = _module_of(base_name, finetune)
        if MIXTURE_MODULE.search(module) and places.layer(module) is None:
            raise UnsupportedAdapter(
                f"{module[:120]} is part of a mixture of experts, of which only LoRA and DoRA without biases can run: "
                "merge the adapter into its base, and submit the merged model."
            )
        if isinstance(submodule(model, module), nn.Linear | nn.Embedding | Conv1D):
            parts.targets[module] = name[: len(name) - len(base_name) + len(module)]
        parts.layers[PEFT_PREFIX + base_name] = tensor


def _low_rank_pairs(finetune: FineTune, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The factors A and B, and DoRA's magnitude, of the low-rank modules of the headless base."""
    pairs: dict[str, dict[str, Tensor]] = {}
    if finetune.config["peft_type"] in ("LORA", "ADALORA"):
        for name, tensor in tensors.items():
            if (match := LORA_KEY.fullmatch(name)) and head_part(name) is None:
                pairs.setdefault(match["module"], {})[match["side"]] = tensor
        for name, tensor in tensors.items():
            if (match := OTHER_FACTOR.fullmatch(name)) and match["module"] in pairs:
                pairs[match["module"]][match["factor"]] = tensor
    return pairs


def replace_weights(parts: AdapterParts, model: nn.Module) -> None:
    """Replace weights of the base by new objects, without modifying the old ones."""
    for name, tensor in (parts.weights | _embeddings_with_rows(parts, model)).items():
        module, _, attribute = name.rpartition(".")
        model.get_submodule(module)._parameters[attribute] = nn.Parameter(tensor, requires_grad=False)


def tied_embedding(parts: AdapterParts, config: Mapping[str, Any], model: PreTrainedModel) -> Tensor | None:
    """The changed embedding of an output head that is tied to it, with PEFT's rules.

    Trained rows and an enlarged vocabulary change a tied head; a copy made by `modules_to_save` does not.
    """
    name = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    weight = f"{name}.weight"
    if weight in parts.rows:
        return _embeddings_with_rows(parts, model)[weight]
    copied = name.rpartition(".")[2] in (config.get("modules_to_save") or []) and not config.get("ensure_weight_tying")
    return None if copied else parts.weights.get(weight)


def _embeddings_with_rows(parts: AdapterParts, model: nn.Module) -> dict[str, Tensor]:
    """Embeddings with trained rows, by weight. An enlarged one is in the file as well."""
    return {
        name: rows.replaced(parts.weights.get(name, model.get_parameter(name))) for name, rows in parts.rows.items()
    }


def _first(name: str) -> str:
    return name.partition(".")[0]


def _is_task_head(part: str, config: Mapping[str, Any], names: ModuleNames) -> bool:
    """Whether a part of an adapter is a head that computes something else than the tokens' logits: it is one that
    transformers' or TRL's classes have, or it was trained in full beside the headless model.
    """
    if part in (*names.parts, *EMBEDDING_NAMES, "model", names.model.base_model_prefix) or head_part(part) is not None:
        return False
    saved = config.get("modules_to_save")
    return part in TASK_HEADS or (isinstance(saved, list) and part in saved)


def _check_question_class(tensors: Mapping[str, Tensor], model: PreTrainedModel) -> None:
    """Raises `UnsupportedAdapter` for a class that does not load its base: transformers gives the layers of some
    classes for question answering a prefix that the base's files do not have, and initializes them.
    """
    if model.base_model_prefix != QUESTION_PREFIX and any(_first(name) == QUESTION_PREFIX for name in tensors):
        raise UnsupportedAdapter(
            f"The adapter has a head for question answering ({QUESTION_HEAD}), and its layers are named "
            f"{QUESTION_PREFIX}.*, those of a class of transformers that does not load the layers of the base. So "
            "it was trained on random weights: train it on a causal language model."
        )


def _module_of(base_name: str, finetune: FineTune) -> str:
    """The module of a tensor of PEFT's layers. Raises `ShapeMismatch`."""
    kind = KINDS.get(finetune.config["peft_type"])
    module, separator, _ = base_name.partition(f".{kind.leaf}") if kind else (base_name, "", "")
    if not separator:
        raise ShapeMismatch(f"The base has no weight {base_name[:120]}. {TRY_OTHER_BASE}")
    return module


def _fitting(name: str, tensor: Tensor, model: nn.Module) -> Tensor:
    """The tensor in the dtype of the weight it replaces. Raises `ShapeMismatch`, except for a changed vocabulary."""
    base_weight = model.get_parameter(name)
    rows_vary = isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding)
    if tensor.ndim != base_weight.ndim or tensor.shape[rows_vary:] != base_weight.shape[rows_vary:]:
        raise ShapeMismatch(
            f"{name} is {list(base_weight.shape)} in the base and {list(tensor.shape)} in the adapter. {TRY_OTHER_BASE}"
        )
    return tensor.to(base_weight.device, base_weight.dtype)


def _trained_rows(name: str, values: Tensor, config: Mapping[str, Any]) -> TrainedRows:
    """The rows of a tensor of trained tokens. PEFT matches the names in the config with the ends of modules' names.

    Raises `InvalidAdapterConfig`.
    """
    tokens = config.get("trainable_token_indices") or config.get("token_indices")
    if isinstance(tokens, dict):
        match = TRAINED_ROWS.fullmatch(name)
        lists = [tokens_of_part for part, tokens_of_part in tokens.items() if match and match[1].endswith(part)]
        tokens = lists[-1] if lists else None
    rows = [token for token in tokens if type(token) is int and token >= 0] if isinstance(tokens, list) else []
    if rows != tokens or values.ndim != 2 or len(values) != len(rows):
        raise InvalidAdapterConfig(
            f"{name[:120]} is {list(values.shape)}, and the config has no list of as many tokens for it: "
            "trainable_token_indices must name the tokens of each embedding whose rows are in the file."
        )
    return TrainedRows(rows, values)
