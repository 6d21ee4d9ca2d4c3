"""The base that a model card claims."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
MAX_CARD = 64 * 1024  # characters looked at


def base_in_card(path: Path) -> str | None:
    """`base_model` in the front matter of a README.md, where it names exactly one; None where anything is amiss."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            front = FRONT_MATTER.match(stream.read(MAX_CARD))
        content = yaml.safe_load(front[1]) if front else None
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return None
    base = content.get("base_model") if isinstance(content, dict) else None
    if isinstance(base, list) and len(base) == 1:
        base = base[0]
    return base if isinstance(base, str) and base else None
