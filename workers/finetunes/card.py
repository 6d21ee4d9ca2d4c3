"""Model cards: the declared bases, and the words of the text."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

MAX_CARD_CHARACTERS = 64 * 1024  # that are read of a card
MAX_TEXT_CHARACTERS = 4_000  # that are stored of its text
MAX_SETTING_CHARACTERS = 2_000  # of one setting in the front matter

_TEXT = "tag:yaml.org,2002:str"
# code, tags, URLs; each alternative stops where the next could begin, so matching takes linear time
_NOT_WORDS = re.compile(r"```.*?(?:```|\Z)|<[^<>]*>|https?://\S+|\]\([^()]*\)", re.DOTALL)
_MARKUP = re.compile(r"[#*_|>`\[\]()-]+")


def bases_in_card(path: Path) -> tuple[str, ...]:
    """The repo ids of `base_model` in the front matter of a README.md, of which merges have several."""
    front, _ = split_front_matter(_text(path))
    try:
        node = yaml.compose(setting(front, "base_model"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return ()
    value = node.value[0][1] if isinstance(node, yaml.MappingNode) and node.value else None
    nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
    names = [node.value for node in nodes if isinstance(node, yaml.ScalarNode) and node.tag == _TEXT and node.value]
    return tuple(dict.fromkeys(names))


def words_of_card(path: Path) -> str | None:
    """The text of a README.md below its front matter, without code, markup and URLs, at most `MAX_TEXT_CHARACTERS`
    long; None if it is empty.
    """
    _, below = split_front_matter(_text(path))
    return words(below)[:MAX_TEXT_CHARACTERS] or None


def words(text: str) -> str:
    """A text without code, markup and URLs."""
    plain = _NOT_WORDS.sub(" ", text).replace("\0", " ")
    return " ".join(_MARKUP.sub(" ", plain).split())


def split_front_matter(card: str) -> tuple[str, str]:
    """The front matter of a card (between two lines of three dashes) and the text below it."""
    first, _, rest = card.partition("\n")
    if first.rstrip() == "---":
        lines = rest.split("\n")
        for number, line in enumerate(lines):
            if line.rstrip() == "---":
                return "\n".join(lines[:number]), "\n".join(lines[number + 1 :])
    return "", card


def setting(front: str, name: str) -> str:
    """The lines of one setting in a front matter, or "" if it is missing or too long.

    The rest is not parsed: with aliases and nesting, kilobytes of YAML can take unbounded time and memory.
    """
    setting_lines: list[str] = []
    for line in front.split("\n"):
        if line.startswith(f"{name}:"):
            setting_lines = [line]
        elif setting_lines:
            if line[:1] not in ("", " ", "-", "#"):
                break
            setting_lines.append(line)
    block = "\n".join(setting_lines).rstrip()
    return block if len(block) <= MAX_SETTING_CHARACTERS else ""


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(MAX_CARD_CHARACTERS)
    except OSError:
        return ""
