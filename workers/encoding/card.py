"""What a model card says: the base that it claims, and its words."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
MAX_CARD = 64 * 1024  # characters looked at
MAX_WORDS = 4_000  # characters of words that are kept

_NOT_WORDS = re.compile(r"```.*?(```|\Z)|<[^>]*>|https?://\S+|\]\([^)]*\)", re.DOTALL)  # code, tags, addresses


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


def words_of_card(path: Path) -> str | None:
    """What a README.md says below its front matter, without code, markup and addresses, at most `MAX_WORDS` characters;
    None where there is nothing.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(MAX_CARD)
    except OSError:
        return None
    plain = _NOT_WORDS.sub(" ", FRONT_MATTER.sub("", text, count=1)).replace("\0", " ")
    return " ".join(re.sub(r"[#*_|>`\[\]()-]+", " ", plain).split())[:MAX_WORDS] or None
