"""Mirrors of base models: a table of their originals, and the endings by which conversions are named."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from catalog.errors import InvalidInput
from catalog.models.repo_ref import is_base_id

SHIPPED_TABLE = Path(__file__).with_name("aliases.json")

# accounts that publish models of others in other formats, and name the original in the card
MIRROR_OWNERS = frozenset(
    {
        "ai-modelscope", "bartowski", "casperhansen", "hugging-quants", "kaitchup", "llm-research",
        "lmstudio-community", "mlx-community", "modelcloud", "neuralmagic", "nm-testing", "redhatai", "solidrust",
        "thebloke", "turboderp", "unsloth",
    }
)  # fmt: skip
# one ending that says how a model was converted: `-bnb-4bit`, `-FP8-dynamic`, `-quantized.w4a16`, `-GPTQ-Int4`, ...
_ENDING = re.compile(
    r"[-_.](?:"
    r"(?:unsloth-)?bnb-[48]bits?|bnb|nf4|(?:quantized\.)?w\d{1,2}a\d{1,2}(?:-\w{1,12})?|quantized|quanto|eetq|marlin"
    r"|(?:gptq|awq|autoround|auto-round|hqq|aqlm|exl[23])(?:[-_.]?(?:int)?\d(?:[-_.]?bits?)?)?"
    r"|gguf|ggml|i1|q[2-8](?:_[0-9k](?:_[sml])?)?|mlx|dwq(?:-\d{4,8})?|mlc|q[2-8]f(?:16|32)(?:_\d)?"
    r"|torchao|nvfp4(?:a16)?|mxfp[48]|fp4|vptq|int[48]wo|inc|sym|asym"
    r"|fp8(?:[-_](?:dynamic|static|block|kv|tensor|channel))?|int[248]|[2-8](?:\.\d{1,2})?[-_]?(?:bits?|bpw)"
    r"|bf16|fp16|fp32|gs?\d{2,3}|\d{2,3}g"
    r")\Z",
    re.IGNORECASE,
)
_MAX_ENDINGS = 4  # that are removed from one name


class AliasTable:
    """Mirrors of base models and their originals: the shipped table, extended and overridden by an admin's.

    Mirror and original must have the same weights under the same module names, so a conversion to another architecture
    is not a mirror. Names are compared without case. Raises `InvalidInput`.
    """

    def __init__(self, aliases: Mapping[str, str]) -> None:
        self._originals = _checked(json.loads(SHIPPED_TABLE.read_text(encoding="utf-8"))) | _checked(aliases)

    def original(self, name: str) -> str | None:
        """The original of a mirror in the table."""
        return self._originals.get(name.lower())

    def originals(self, name: str) -> list[str]:
        """The possible originals of `name`, the likeliest first: those in the table for the name and for the name
        without the ending of a conversion, then the name without that ending.
        """
        converted = [name, *without_endings(name)]
        candidates = [*(self.original(form) for form in converted), *converted]
        return [repo for repo in dict.fromkeys(candidates) if repo and repo != name]


def without_endings(name: str) -> list[str]:
    """The name of a repo with one ending of a conversion after another removed; empty if it has none."""
    forms: list[str] = []
    for _ in range(_MAX_ENDINGS):
        shorter = _ENDING.sub("", name)
        if shorter == name or not is_base_id(shorter):
            break
        name = shorter
        forms.append(name)
    return forms


def _checked(aliases: Mapping[str, str]) -> dict[str, str]:
    pairs = aliases.items() if isinstance(aliases, Mapping) else [(None, None)]
    if not all(is_base_id(side) for pair in pairs for side in pair):
        raise InvalidInput('The alias table must be a JSON object {"MIRROR": "ORIGINAL"} of repo ids.')
    return {mirror.lower(): original for mirror, original in aliases.items()}
