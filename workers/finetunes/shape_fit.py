"""Whether a fine-tune's tensors fit a base's: pure comparison of names and shapes, from headers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.finetunes.lora_config import KEY
from workers.finetunes.safetensors_file import read_header

Shape = tuple[int, ...]

_WEIGHT = re.compile(r"(?P<module>.+?)(\.modules_to_save(\.default)?|\.base_layer)?\.weight")
# where a checkpoint and the model class built from it name the same module differently, they differ in these
_PREFIX = re.compile(r"^((base_model|model|transformer|language_model|gpt_neox)\.)+")
_VOCABULARY = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "lm_head", "embed_out"})


@dataclass(frozen=True)
class Fit:
    """`matched` modules agree; each of `problems` is a sentence about one that does not.

    `same_vocabulary` is None where the fine-tune brings no embedding of its own to compare.
    """

    matched: int
    problems: tuple[str, ...]
    same_vocabulary: bool | None = None

    def summary(self) -> str:
        more = len(self.problems) - 3
        return "; ".join(self.problems[:3]) + (f"; and {more} more" if more > 0 else "")


def weight_shapes(folder: Path) -> dict[str, Shape]:
    """Names and shapes of all tensors in a folder's safetensors. Raises what `read_header` raises."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: entry.shape for file in files for name, entry in read_header(file).items()}


def compare(finetune: Mapping[str, Shape], base: Mapping[str, Shape]) -> Fit:
    """Compare what a fine-tune's tensors ask of each module with the module's weight in the base.

    Args are names and shapes as the files hold them: LoRA pairs `A (r, in)` and `B (out, r)` ask for a weight of
    `(out, in)`, or of `(in, out)` where the base keeps it transposed (GPT-2's Conv1D); whole weights ask for their
    own shape. A vocabulary may have been enlarged, so there only the width counts. Modules of a kind that the base's
    files do not name (fused when loaded, tied, other adapter types) are left out: the encoder judges them.
    """
    weights = _weights(base)
    kinds = {_kind(module) for module in weights}
    matched = 0
    problems: list[str] = []
    same_vocabulary: bool | None = None
    for module, asked in {**_weights(finetune), **_lora_weights(finetune)}.items():
        found = weights.get(module, ())
        if not found:
            if _kind(module) in kinds:
                problems.append(f"the base has no {module}")
            continue
        if module.rpartition(".")[2] in _VOCABULARY:
            same_vocabulary = asked[0] == found[0] and same_vocabulary is not False
            agree = asked[1] == found[1]
        else:
            agree = sorted(asked) == sorted(found)
        if agree:
            matched += 1
        else:
            problems.append(f"{module} is {_times(found)} in the base and {_times(asked)} in the fine-tune")
    return Fit(matched, tuple(problems), same_vocabulary)


def _weights(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for name, shape in shapes.items():
        match = _WEIGHT.fullmatch(name)
        if match and len(shape) == 2 and ".lora_" not in name:
            found[_PREFIX.sub("", match["module"])] = shape
    return found


def _lora_weights(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    halves: dict[str, dict[str, int]] = {}
    for name, shape in shapes.items():
        match = KEY.fullmatch(name)
        if match and len(shape) == 2:
            outer = shape[1] if match["side"] == "A" else shape[0]
            halves.setdefault(match["module"], {})[match["side"]] = outer
            if match["embedding"]:
                halves[match["module"]]["embedding"] = 1
    found: dict[str, Shape] = {}
    for module, half in halves.items():
        if {"A", "B"} <= set(half):
            wide = (half["A"], half["B"]) if "embedding" in half else (half["B"], half["A"])
            found[_PREFIX.sub("", module)] = wide
    return found


def _kind(module: str) -> str:
    return re.sub(r"\d+", "*", module)


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape))
