"""The config of a model: whether it says that the weights are quantized or need code from the repo, and whether that is
so.

Configs are copied from a training to its result, with settings that hold for the one and not for the other: the
quantization of a base whose merged weights are floats again, and the code of a type that transformers has had since.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from catalog.errors import QuantizedWeights, Refused, RemoteCode
from workers.finetunes.safetensors_file import TensorEntry

MAX_CONFIG_LEVELS = 4  # the config of a language model may be nested in that of a multimodal model
CODE_SETTINGS = ("auto_map", "trust_remote_code")
MODEL_LISTS = (  # class names of transformers by model type
    modeling_auto.MODEL_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)
# what `auto_map` has classes for that affect hidden states; heads of classifiers are not loaded
CODE_OF_MODELS = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText")
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
# scales and packed matrices of the usual methods; their other tensors may be floats
_QUANTIZED_PART = re.compile(
    r"[._](qweight|qzeros|scales|weight_packed|weight_(scale|zero_point)\w*|input_scale|absmax|SCB|blocks)$"
)
_QUANTIZES_FLOATS = "bitnet"  # the only method whose model quantizes float weights whenever it runs


def without_leftovers(
    config: Mapping[str, Any], entries: Mapping[str, TensorEntry], name: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config of a full model without code and quantization that do not apply to it, and a note for each.

    Raises `RemoteCode` and `QuantizedWeights`.
    """
    notes = list(code_notes(config, name, RemoteCode))
    method = quantization(config)
    packed = [tensor for tensor, entry in entries.items() if _is_quantized(tensor, entry, said=method is not None)]
    if packed or method == _QUANTIZES_FLOATS:
        raise QuantizedWeights(
            f"{name} is quantized ({method or packed[0][:120]}), so its activations are not those of what was trained: "
            "submit the unquantized model."
        )
    if method:
        notes.append(f"The quantization in config.json ({method}) was ignored: the weights are not quantized.")
    return {key: value for key, value in config.items() if key not in CODE_SETTINGS}, tuple(notes)


def code_notes(config: Mapping[str, Any], name: str, error: type[Refused]) -> tuple[str, ...]:
    """A note if a config asks for code from its repo of which transformers has the same classes itself.

    Raises `error` for a type or class that transformers does not have.
    """
    auto_map, model_type = config.get("auto_map"), str(config.get("model_type"))
    if not auto_map and not config.get("trust_remote_code"):
        return ()
    classes = [str(auto_map[key]) for key in CODE_OF_MODELS if auto_map.get(key)] if isinstance(auto_map, dict) else []
    own = _class_names(model_type)
    foreign = [path for path in classes if _normalized(path.rpartition(".")[2]) not in own]
    if not own or foreign:
        what = foreign[0][:120] if foreign else f"a model of the type {model_type[:40]!r}"
        raise error(
            f"config.json of {name} requires code from its repo ({what}); Deltadex never runs the code of a repo. "
            "Convert it to a class that transformers has, and remove auto_map from its config."
        )
    return (f"The code in the repo of {name} was not run: transformers has {model_type} models itself.",)


def refuse_quantized(config: Mapping[str, Any], name: str, error: type[Refused], instead: str) -> None:
    """Raise `error` for a quantized model. Its message ends with `instead`, which says whose activations are needed and
    what to do.
    """
    if method := quantization(config):
        raise error(f"{name} is quantized ({method}), so its activations are not those of {instead}")


def quantization(config: Mapping[str, Any]) -> str | None:
    """The quantization method in a config or one of its nested configs; None if there is none."""
    level = [config]
    for _ in range(MAX_CONFIG_LEVELS):
        for part in level:
            if settings := part.get("quantization_config"):
                return str(settings.get("quant_method", "unknown") if isinstance(settings, dict) else "unknown")[:40]
        level = [value for part in level for value in part.values() if isinstance(value, Mapping)]
    return None


def _is_quantized(name: str, entry: TensorEntry, *, said: bool) -> bool:
    """Whether a tensor is a packed matrix or belongs to one; `said` if the config says that the model is quantized.

    Integers are also in masks and positions of old files, and floats in scales of other meanings.
    """
    belongs = bool(_QUANTIZED_PART.search(name))
    if entry.dtype in FLOAT_DTYPES:
        return belongs and said
    return belongs or name.endswith(".weight") or (said and len(entry.shape) == 2)


def _class_names(model_type: str) -> set[str]:
    """The classes that transformers has for a model type, normalized; empty if it has none."""
    return {_normalized(name) for name in _listed_names(model_type)} if model_type in CONFIG_MAPPING_NAMES else set()


def _listed_names(model_type: str) -> Iterator[str]:
    yield CONFIG_MAPPING_NAMES[model_type]
    for names in MODEL_LISTS:
        listed = names.get(model_type, ())
        yield from (listed,) if isinstance(listed, str) else listed


def _normalized(class_name: str) -> str:
    """A class name in the spelling that a repo and transformers share: MPTConfig is MptConfig."""
    return class_name.replace("_", "").casefold()
