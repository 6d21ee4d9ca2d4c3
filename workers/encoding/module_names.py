"""The modules of a base that the names in an adapter mean.

An adapter has the names of the class that it was trained on. For one base there are several: with and without an output
head; before and after version 4.52 of transformers, which moved the text model of multimodal models
(`language_model.model.layers`, `model.language_model.layers`); and the class of the text model alone (`model.layers`).
They differ in the words before the text model's layers, which are the same in all of them, as PEFT and vLLM map them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from catalog.errors import InvalidAdapterConfig, ShapeMismatch
from workers.encoding.output_head import HEAD_NAMES
from workers.finetunes.finetune import FineTune
from workers.finetunes.lora_config import PEFT_PREFIX
from workers.finetunes.tensor_names import SHARED_PREFIX, TEXT_PREFIXES, names_other_part, without_prefixes

# heads of classifiers, of reward and value models, and of retrievers: transformers' names, and those of other trainers
TASK_HEADS = (
    *("score", "classifier", "classification_head", "qa_outputs", "multiple_choice_head"),
    *("v_head", "value_head", "reward_head", "rm_head", "regression_layer", "custom_text_proj"),
)
TRY_OTHER_BASE = "Submit it with the base that it was trained on."
MAX_NAMED_PARTS = 5  # in a note


class ModuleNames:
    """The names of a headless base's modules, to which those of adapters are mapped."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        paths = {module: name for name, module in model.named_modules()}
        self._roots = [(paths[root], root) for root in _text_models(model) if root in paths]
        self._text = paths[model.get_decoder()]
        self._embedding = paths.get(model.get_input_embeddings(), "")
        self._prefixes = TEXT_PREFIXES | {root.base_model_prefix for _, root in self._roots}
        self.parts = {part for _, root in self._roots for part in root._modules}
        self._multimodal = model.config.get_text_config() is not model.config

    def find(self, name: str) -> str | None:
        """The name in the headless base of a tensor or module of an adapter; None if hidden states of text prompts do
        not depend on it. The last words of a name may be the adapter's own.

        Raises `ShapeMismatch` if no part of the base has such a name, and `InvalidAdapterConfig` if two have.
        """
        if without_prefixes(name).partition(".")[0] in TASK_HEADS:
            return None
        words = name.split(".")
        matches = []  # the number of words that name no module, and the name in the base
        for start in range(len(words)):
            for path, root in self._roots:
                count = _resolved(root, words[start:])
                if count:
                    base_name = ".".join([path] * bool(path) + words[start:])
                    matches.append((len(words) - start - count, base_name))
            if words[start] not in self._prefixes:
                break
        if not matches:
            if self._multimodal and names_other_part(name):
                return None
            raise no_module(self.model, name)
        base_name = min(matches, key=lambda match: match[0])[1]
        if not self._in_text(base_name):
            return None
        self._check_unambiguous(name, base_name)
        return base_name

    def find_all(self, names: Iterable[str]) -> dict[str, str]:
        """The names in the headless base of those that `find` returns one for, without those of the output head.

        Raises what `find` raises, and `InvalidAdapterConfig` if two names mean the same.
        """
        adapter_names: dict[str, str] = {}  # by the base's
        for name in names:
            base_name = self.find(name) if head_part(name) is None else None
            if base_name is not None and adapter_names.setdefault(base_name, name) != name:
                raise InvalidAdapterConfig(
                    f"{name[:120]} and {adapter_names[base_name][:120]} are both {base_name[:120]} of the base: save "
                    "one adapter, unwrapped, with `save_pretrained`."
                )
        return {name: base_name for base_name, name in adapter_names.items()}

    def in_causal_lm(self, name: str) -> str:
        """An adapter's module by its name in the causal LM around the headless base. Raises what `find` raises, and
        `ShapeMismatch` for a module that the base does not have.
        """
        base_name = self.find(name) or without_prefixes(name)
        submodule(self.model, base_name)
        return ".".join(filter(None, (self.model.base_model_prefix, base_name)))

    def notes(self, finetune: FineTune) -> tuple[str, ...]:
        """Sentences for users about the names of an adapter that fits the base."""
        if finetune.path not in ("lora", "peft"):
            return ()
        keys = [key for key in finetune.tensors if key.startswith(PEFT_PREFIX) or not key.startswith(SHARED_PREFIX)]
        names = [name for name in (key.removeprefix(PEFT_PREFIX) for key in keys) if head_part(name) is None]
        base_names = {name: self._find_known(name) for name in names}
        parts = {without_prefixes(name).partition(".")[0] for name in names if base_names[name] is None}
        left_out = sorted(parts - {*TASK_HEADS} if finetune.path == "peft" else parts)  # that path notes heads itself
        notes = []
        if left_out:
            listed = ", ".join(part[:40] for part in left_out[:MAX_NAMED_PARTS])
            notes.append(f"Left out, because the hidden states of text prompts do not depend on it: {listed}.")
            if len(names) == len(keys) and not any(base_names.values()):
                notes.append("The adapter changes nothing else, so its vector is zero.")
        prefixes = ("", f"{self.model.base_model_prefix}.", "model.")
        moved = ((name, new) for name, new in base_names.items() if new and name not in [f"{p}{new}" for p in prefixes])
        if example := next(moved, None):
            old, new = example
            notes.append(
                f"The names are those of another class or version: {old[:120]} was read as {new[:120]}, for example."
            )
        return tuple(notes)

    def _find_known(self, name: str) -> str | None:
        """What `find` returns; "" for a name that the adapter's path leaves out for another reason."""
        try:
            return self.find(name)
        except ShapeMismatch:
            return ""

    def _in_text(self, base_name: str) -> bool:
        """Whether text prompts run the module."""
        if not self._multimodal or base_name.startswith(f"{self._embedding}."):
            return True
        return base_name.startswith(f"{self._text}.") if self._text else not names_other_part(base_name)

    def _check_unambiguous(self, name: str, base_name: str) -> None:
        """Raises `InvalidAdapterConfig` if a name that lacks its part's prefix fits another part as well."""
        prefix = base_name.removesuffix(name)
        if not self._multimodal or not prefix:
            return
        modules = dict(self.model.named_modules())
        module = base_name
        while module not in modules:  # without the words of a parameter or of the adapter
            module = module.rpartition(".")[0]
        short_name, shape = module.removeprefix(prefix), _weight_shape(modules[module])
        for other, candidate in modules.items():
            if other.endswith(f".{short_name}") and other != module and shape and _weight_shape(candidate) == shape:
                raise InvalidAdapterConfig(
                    f"{name[:120]} can be {module} or {other} of the base. Write the part's name before the names of "
                    "the adapter's tensors."
                )


def head_part(name: str) -> str | None:
    """The name of a tensor within the output head ("" for the head itself); None if it is not of the head."""
    first, _, rest = without_prefixes(name).partition(".")
    return rest if first in HEAD_NAMES else None


def submodule(model: PreTrainedModel, base_name: str) -> nn.Module:
    """A module of the headless base. Raises `ShapeMismatch`."""
    try:
        return model.get_submodule(base_name)
    except AttributeError:
        raise no_module(model, base_name) from None


def no_module(model: PreTrainedModel, name: str) -> ShapeMismatch:
    """The error for a name that fits nothing, with a name that the base has."""
    decoder: Any = model.get_decoder()
    prefix = next(path for path, module in model.named_modules() if module is decoder)
    layers = [path for path, module in decoder.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    similar = [path for path in layers if path.rpartition(".")[2] in name.split(".")] or layers
    example = ".".join(filter(None, (prefix, *similar[:1])))
    return ShapeMismatch(
        f"The base has no module {name[:120]}; the names of its modules are like {example[:120]}. Submit the adapter "
        "with the base that it was trained on, and with the names that PEFT's `save_pretrained` writes."
    )


def _text_models(model: PreTrainedModel) -> list[PreTrainedModel]:
    """The model and the text models in it, from the outermost to the innermost."""
    models = [model]
    for outer in models:
        inner = [outer.base_model, outer.get_decoder()] if isinstance(outer, PreTrainedModel) else []
        models += [other for other in inner if all(other is not known for known in models)]
    return models


def _resolved(root: nn.Module, words: Sequence[str]) -> int:
    """The number of words that lead from a module to one of its modules or parameters."""
    module = root
    for count, word in enumerate(words):
        child = module._modules.get(word)
        if child is None:
            return count + (word in module._parameters)
        module = child
    return len(words)


def _weight_shape(module: nn.Module) -> list[int]:
    weight = getattr(module, "weight", None)
    return list(weight.shape) if isinstance(weight, Tensor) else []
