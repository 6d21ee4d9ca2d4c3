"""What wrappers of a model leave in the names of its tensors, and names without it.

A wrapped model saved by its own `state_dict` has the wrapper's attribute in every name. No model of transformers has an
attribute of such a name where it is removed here, so a name without it is what the author's model has. Whatever else
differs between classes of one model depends on the base (`workers/encoding/module_names.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from catalog.errors import InvalidAdapterConfig, InvalidModelConfig
from workers.finetunes.lora_config import PEFT_PREFIX
from workers.finetunes.peft_kinds import KINDS

Value = TypeVar("Value")

INNER_WRAPPERS = {  # removed wherever they are
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_fpw_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
}
OUTER_WRAPPERS = {  # removed only at the beginning, or directly after PEFT's prefix
    "module": "DDP or DeepSpeed",
    "state_dict": "a checkpoint's dictionary",
    "pretrained_model": "a value head's wrapper",
}
TEXT_PART = "language_model"  # of multimodal models; a text model saved out of one keeps it in its names
# attributes of trainers' classes, removed only where no model's own module can be: in front of PEFT's prefix, and in
# front of all names of a full model, except "model"
HOLDERS = frozenset({"model", "_model", "net", "network", "llm", "lm", "policy", "actor", "student", "peft_model"})
# what stands before the layers of a text model, in one class of its family or another
TEXT_PREFIXES = HOLDERS | {*OUTER_WRAPPERS, "base_model", "language_model", "text_model", "thinker", "vlm"}
CLASS_PREFIXES = TEXT_PREFIXES | {"transformer", "gpt_neox", "backbone"}  # the last of some families only
# parts of multimodal models for images and sound, and between these and the text model
OTHER_PART = re.compile(
    r".*(vision|visual|image|img|video|audio|speech|acoustic|projector|projection|resampler|perceiver|qformer|connector"
    r"|aligner|multi_?modal).*|mm_.*|mlp_AR|mlp1|merger|vit|vpm|apm|talker|token2wav"
)
SHARED_PREFIX = "base_model."  # of tensors that all layers share, and the first half of `PEFT_PREFIX`
SAVED_COPIES = ("modules_to_save", "ln_tuning_layers")  # a tensor's own name in its module follows
# beginnings of the names of an adapter's tensors within a module; the adapter's name follows, until PEFT removes it
LEAVES = (*(kind.leaf for kind in KINDS.values()), "vera_", "trainable_tokens_delta")
DEFAULT_ADAPTER = "default"
MAX_PREFIXES = 8  # of one full model's names; each is matched with every name


def clean_name(name: str) -> str:
    """A tensor's name without the attributes of wrappers."""
    return _unwrap(name)[0]


def without_prefixes(name: str) -> str:
    """A name without the words before the text model's layers, in which classes of one family differ."""
    first, _, rest = name.partition(".")
    while rest and first in CLASS_PREFIXES:
        name = rest
        first, _, rest = name.partition(".")
    return name


def names_other_part(name: str) -> bool:
    """Whether a name is of a part for images or sound, which no text prompt reaches."""
    return OTHER_PART.fullmatch(without_prefixes(name).partition(".")[0]) is not None


def clean_names(
    names: Iterable[str], error: type[InvalidAdapterConfig | InvalidModelConfig]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Each name with its clean name, and a note for each wrapper. Raises `error` if two names become the same."""
    cleaned, removed = {}, set()
    for name in names:
        cleaned[name], wrappers = _unwrap(name)
        removed |= wrappers
    _check_unique(cleaned, sorted(removed), error)
    return cleaned, tuple(wrapper_note(wrapper) for wrapper in sorted(removed))


def clean_adapter(tensors: Mapping[str, Value]) -> tuple[dict[str, Value], tuple[str, ...]]:
    """An adapter's tensors by their names as PEFT writes them, and a note for everything that was removed.

    Raises `InvalidAdapterConfig` if two names become the same, or if the tensors are of several adapters.
    """
    cleaned, notes = clean_names(tensors, InvalidAdapterConfig)
    adapter = _adapter_name(cleaned.values())
    if adapter is not None:
        cleaned = {name: _without_adapter_name(clean, adapter) for name, clean in cleaned.items()}
        _check_unique(cleaned, [adapter], InvalidAdapterConfig)
        if adapter != DEFAULT_ADAPTER:
            notes += (f"The adapter's own name {adapter[:40]!r} was removed from the names of its tensors.",)
    return {cleaned[name]: value for name, value in tensors.items()}, notes


def wrapper_patterns(names: Iterable[str], *, text_alone: bool) -> dict[str, str]:
    """Patterns of what wrappers left in the names of a full model's tensors, for `from_pretrained(key_mapping=...)`;
    of a model that is text alone, also of the multimodal model that it was a part of.

    Each pattern is removed once, in this order. They are made of the words above and of no other part of a name.
    """
    removed = {*INNER_WRAPPERS, TEXT_PART} if text_alone else INNER_WRAPPERS
    outer: set[str] = set()
    inner: Counter[str] = Counter()
    clean = {name: clean_name(name).removeprefix(PEFT_PREFIX) for name in names}
    for name, cleaned in clean.items():
        parts = name.split(".")
        inner |= Counter(part for part in parts if part in removed)
        rest = ".".join(part for part in parts if part not in INNER_WRAPPERS)
        if rest.endswith(f".{cleaned}"):
            outer.add(rest.removesuffix(cleaned))
    patterns = {
        # the comment makes the pattern another key for each time
        rf"\b{wrapper}\.(?#{number})": ""
        for wrapper, times in inner.items()
        for number in range(times)
    }
    prefixes = sorted(outer, key=len, reverse=True)[:MAX_PREFIXES]
    patterns |= {f"^{re.escape(prefix)}": "" for prefix in prefixes}
    holder = holder_of(clean.values())
    return patterns | ({rf"^{holder}\.": ""} if holder else {})


def holder_of(names: Iterable[str]) -> str | None:
    """The attribute of a trainer's class in which all weights of a full model are, by their clean names."""
    words = {name.partition(".")[0] for name in names}
    return words.pop() if len(words) == 1 and words < HOLDERS - {"model"} else None  # "model" is transformers' own


def _unwrap(name: str) -> tuple[str, set[str]]:
    """A name without wrappers, and the wrappers."""
    *path, last = name.split(".")
    removed = {part for part in path if part in INNER_WRAPPERS}
    rest = ".".join([part for part in path if part not in INNER_WRAPPERS] + [last])
    prefix = ""
    while True:
        if rest.startswith(PEFT_PREFIX):
            removed |= {PEFT_PREFIX} if prefix else set()
            prefix, rest = PEFT_PREFIX, rest.removeprefix(PEFT_PREFIX)
            continue
        first, _, after = rest.partition(".")
        holds_peft = first in HOLDERS and SHARED_PREFIX in after
        if not after or not (first in OUTER_WRAPPERS or holds_peft):
            break
        removed.add(first)
        rest = after
    if f".{PEFT_PREFIX}" in rest:  # PEFT around one part of the model
        removed.add(PEFT_PREFIX)
        prefix, rest = PEFT_PREFIX, rest.replace(f".{PEFT_PREFIX}", ".")
    return (rest if rest.startswith(SHARED_PREFIX) else prefix + rest), removed


def wrapper_note(wrapper: str) -> str:
    origin = {**INNER_WRAPPERS, **OUTER_WRAPPERS, PEFT_PREFIX: "PEFT inside another wrapper"}
    source = origin.get(wrapper, "a trainer's class")
    return f"'{wrapper.rstrip('.')}.', which {source} left there, was removed from the names of the tensors."


def _check_unique(
    cleaned: Mapping[str, str], removed: list[str], error: type[InvalidAdapterConfig | InvalidModelConfig]
) -> None:
    (name, count) = Counter(cleaned.values()).most_common(1)[0] if cleaned else ("", 1)
    if count > 1:
        first, second = [original for original, clean in cleaned.items() if clean == name][:2]
        raise error(
            f"The tensors {first[:120]} and {second[:120]} have the same name without "
            f"{', '.join(repr(wrapper[:40]) for wrapper in removed)}, which a wrapper left there. "
            "Save one model, unwrapped, with `save_pretrained`."
        )


def _adapter_name(names: Iterable[str]) -> str | None:
    """The adapter's name that its tensors have; None if they have none. Raises `InvalidAdapterConfig` for several."""
    adapters: set[str] = set()
    after_copies: set[str] = set()
    for name in names:
        parts = name.split(".")
        position = _leaf_position(parts)
        if position is None:
            continue
        after = parts[position + 1 :]
        if parts[position] in SAVED_COPIES:
            after_copies.add(after[0] if len(after) > 1 else "")
        elif after and after[0] not in ("weight", "bias"):
            adapters.add(after[0])
    if len(after_copies) == 1 and not adapters:
        adapters = after_copies - {""}  # all copies of modules have the same word there
    if len(adapters) > 1:
        listed = ", ".join(repr(name[:40]) for name in sorted(adapters)[:3])
        raise InvalidAdapterConfig(f"The file has tensors of several adapters ({listed}): save one of them alone.")
    return next(iter(adapters), None)


def _without_adapter_name(name: str, adapter: str) -> str:
    parts = name.split(".")
    position = _leaf_position(parts)
    if position is not None and parts[position + 1 : position + 2] in ([adapter], [DEFAULT_ADAPTER]):
        del parts[position + 1]
    return ".".join(parts)


def _leaf_position(parts: list[str]) -> int | None:
    """The index of the word that PEFT adds to a module's name."""
    positions = [index for index, part in enumerate(parts) if part in SAVED_COPIES or part.startswith(LEAVES)]
    return positions[-1] if positions else None
