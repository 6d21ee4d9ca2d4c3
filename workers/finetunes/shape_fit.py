"""Whether a fine-tune fits a base: a comparison of tensor names and shapes, from headers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.finetunes.contents import FetchHeader, parse_fetched
from workers.finetunes.lora_config import LORA_KEY
from workers.finetunes.tensor_names import clean_name, names_other_part, without_prefixes
from workers.finetunes.weight_files import Header, local_headers, read_headers, tensor_entries

Shape = tuple[int, ...]

_WEIGHT = re.compile(r"(?P<module>.+?)(\.modules_to_save(\.default)?|\.base_layer)?\.weight")
_VOCABULARY = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "lm_head", "embed_out"})


@dataclass(frozen=True)
class Fit:
    """The number of `matched` modules, and a sentence in `problems` for each module that does not fit.

    `same_vocabulary` is None if the fine-tune has no embedding to compare.
    """

    matched: int
    problems: tuple[str, ...]
    same_vocabulary: bool | None = None

    def summary(self) -> str:
        more = len(self.problems) - 3
        return "; ".join(self.problems[:3]) + (f"; and {more} more" if more > 0 else "")


def weight_shapes(folder: Path) -> dict[str, Shape]:
    """Names and shapes of all tensors that transformers loads from a folder. Raises what `local_headers` raises."""
    return _shapes(local_headers(folder))


def fetched_shapes(folder: Path, names: Sequence[str], fetch_header: FetchHeader) -> dict[str, Shape]:
    """The same of the files `names`, whose headers `fetch_header` returns; `folder` has their index.

    Raises `CorruptWeights` and what `fetch_header` raises.
    """
    return _shapes(read_headers(folder, names, parse_fetched(fetch_header)))


def compare(finetune: Mapping[str, Shape], base: Mapping[str, Shape]) -> Fit:
    """Compare the weight shape that a fine-tune requires of each module with its shape in the base.

    Arguments are names and shapes as in the files, those of the fine-tune without what wrappers left in its names. A
    LoRA pair `A (r, in)` and `B (out, r)` requires a weight `(out, in)`, or `(in, out)` if the base stores it
    transposed (GPT-2's Conv1D); a whole weight requires its own shape. A vocabulary may have been enlarged, so only the
    width of embeddings is compared. Modules of a kind that is not in the base's files (fused when loaded, tied, other
    adapter types) and parts for images and sound are ignored here; the encoder checks them.
    """
    weights = _weights(base)
    kinds = {_kind(module) for module in weights}
    matched = 0
    problems: list[str] = []
    same_vocabulary: bool | None = None
    for module, required in {**_weights(finetune), **_lora_weights(finetune)}.items():
        base_shape = weights.get(module, ())
        if not base_shape:
            if _kind(module) in kinds:
                problems.append(f"the base has no {module}")
            continue
        if module.rpartition(".")[2] in _VOCABULARY:
            same_vocabulary = required[0] == base_shape[0] and same_vocabulary is not False
            fits = required[1] == base_shape[1]
        else:
            fits = sorted(required) == sorted(base_shape)
        if fits:
            matched += 1
        else:
            problems.append(f"{module} is {_as_text(base_shape)} in the base and {_as_text(required)} in the fine-tune")
    return Fit(matched, tuple(problems), same_vocabulary)


def _shapes(headers: Mapping[str, Header]) -> dict[str, Shape]:
    return {clean_name(name): entry.shape for name, entry in tensor_entries(headers).items()}


def _weights(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    weights: dict[str, Shape] = {}
    for name, shape in shapes.items():
        match = _WEIGHT.fullmatch(name)
        if match and len(shape) == 2 and ".lora_" not in name and not names_other_part(name):
            weights[without_prefixes(match["module"])] = shape
    return weights


def _lora_weights(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    pairs: dict[str, dict[str, int]] = {}
    for name, shape in shapes.items():
        match = LORA_KEY.fullmatch(name)
        if match and len(shape) == 2 and not names_other_part(name):
            width = shape[1] if match["side"] == "A" else shape[0]
            pairs.setdefault(match["module"], {})[match["side"]] = width
            if match["embedding"]:
                pairs[match["module"]]["embedding"] = 1
    weights: dict[str, Shape] = {}
    for module, pair in pairs.items():
        if {"A", "B"} <= set(pair):
            shape = (pair["A"], pair["B"]) if "embedding" in pair else (pair["B"], pair["A"])
            weights[without_prefixes(module)] = shape
    return weights


def _kind(module: str) -> str:
    return re.sub(r"\d+", "*", module)


def _as_text(shape: Shape) -> str:
    return " x ".join(map(str, shape))
