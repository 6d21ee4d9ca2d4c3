"""What a model card says: the base that it claims, and its words."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

MAX_CARD = 64 * 1024  # characters looked at
MAX_WORDS = 4_000  # characters of words that are kept
MAX_SETTING = 2_000  # characters of one setting in the front matter

_TEXT = "tag:yaml.org,2002:str"
# code, tags, addresses; each alternative stops where the next could begin, so that no text is read twice
_NOT_WORDS = re.compile(r"```.*?(?:```|\Z)|<[^<>]*>|https?://\S+|\]\([^()]*\)", re.DOTALL)
_MARKUP = re.compile(r"[#*_|>`\[\]()-]+")


def base_in_card(path: Path) -> str | None:
    """`base_model` in the front matter of a README.md, where it names exactly one; None where anything is amiss."""
    front, _ = parted(_text(path))
    try:
        node = yaml.compose(setting(front, "base_model"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    value = node.value[0][1] if isinstance(node, yaml.MappingNode) and node.value else None
    if isinstance(value, yaml.SequenceNode) and len(value.value) == 1:
        value = value.value[0]
    if isinstance(value, yaml.ScalarNode) and value.tag == _TEXT:
        return value.value or None
    return None


def words_of_card(path: Path) -> str | None:
    """What a README.md says below its front matter, without code, markup and addresses, at most `MAX_WORDS` characters;
    None where there is nothing.
    """
    _, below = parted(_text(path))
    return words(below)[:MAX_WORDS] or None


def words(text: str) -> str:
    """A text without code, markup and addresses."""
    plain = _NOT_WORDS.sub(" ", text).replace("\0", " ")
    return " ".join(_MARKUP.sub(" ", plain).split())


def parted(card: str) -> tuple[str, str]:
    """The front matter of a card, between two lines of three dashes, and what stands below it."""
    first, _, rest = card.partition("\n")
    if first.rstrip() == "---":
        lines = rest.split("\n")
        for number, line in enumerate(lines):
            if line.rstrip() == "---":
                return "\n".join(lines[:number]), "\n".join(lines[number + 1 :])
    return "", card


def setting(front: str, name: str) -> str:
    """The lines of one setting in a front matter, "" where there is none or a long one.

    The rest is never read: aliases and nesting make YAML of kilobytes take any time, and any memory.
    """
    found: list[str] = []
    for line in front.split("\n"):
        if line.startswith(f"{name}:"):
            found = [line]
        elif found:
            if line[:1] not in ("", " ", "-", "#"):
                break
            found.append(line)
    block = "\n".join(found).rstrip()
    return block if len(block) <= MAX_SETTING else ""


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(MAX_CARD)
    except OSError:
        return ""
