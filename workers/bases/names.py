"""What people and trainers write where a base model's name belongs, read as repo ids."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import InvalidInput
from catalog.models.repo_ref import REPO_ID_PART

SHIPPED = Path(__file__).with_name("aliases.json")

_REPO_ID = re.compile(rf"(?:{REPO_ID_PART}/)?{REPO_ID_PART}")  # the oldest models on the Hub have no owner: gpt2
_ON_SOME_DISK = re.compile(r"[/\\~.]|[A-Za-z]:[/\\]")
# the Hub client's own folder names
_IN_A_CACHE = re.compile(rf"models--(?:({REPO_ID_PART})--)?({REPO_ID_PART})(?=[/\\]|$)")
_HUB_URL = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/")
_QUANTISED = re.compile(r"(?:-unsloth)?-bnb-[48]bit|-AWQ|-GPTQ(?:-Int[48])?", re.IGNORECASE)
_SHOWN = 200  # characters of a claim
_LONGEST = 4096  # characters of a path; patterns are searched in no more


@dataclass(frozen=True)
class Candidate:
    """A base to try, and the evidence for it: "declared", "card", "alias" or "shapes"."""

    repo: str
    source: str


def read_claim(claim: object) -> tuple[str, str | None]:
    """The repo id in a claim, and None; or the claim as written, and why it can name no repo.

    Ids, addresses on the Hub and folders in the Hub client's cache are understood.
    """
    text = claim.strip() if isinstance(claim, str) else ""
    if len(text) > _LONGEST:
        return text[:_SHOWN], "is not the id of a repo"
    name = _HUB_URL.sub("", text).strip("/") if _HUB_URL.match(text) else text
    if cached := _IN_A_CACHE.search(name):
        name = "/".join(part for part in cached.groups() if part)
    elif _ON_SOME_DISK.match(name):
        return text[:_SHOWN], "is a folder of the machine on which it was trained"
    if not is_repo_id(name):
        return str(claim)[:_SHOWN], "is not the id of a repo"
    return name, None


def is_repo_id(name: object) -> bool:
    return isinstance(name, str) and _REPO_ID.fullmatch(name) is not None and ".." not in name


class AliasTable:
    """Mirrors and their originals: the shipped table, extended (and overruled) by an admin's.

    An entry belongs in the table only where both have the same weights under the same module names; a conversion to
    another architecture has not. Letters' case does not count. Raises `InvalidInput`.
    """

    def __init__(self, more: Mapping[str, str]) -> None:
        self._originals = _checked(json.loads(SHIPPED.read_text(encoding="utf-8"))) | _checked(more)

    def originals(self, name: str) -> list[str]:
        """What `name` may be a mirror of, the likeliest first: its alias, and for a quantised one the same without
        the quantisation in its name.
        """
        plain = _QUANTISED.sub("", name, count=1)
        chain = (self._originals.get(name.lower()), self._originals.get(plain.lower()), plain)
        return [repo for repo in dict.fromkeys(chain) if repo and repo != name]


def _checked(aliases: Mapping[str, str]) -> dict[str, str]:
    pairs = aliases.items() if isinstance(aliases, Mapping) else [(None, None)]
    if not all(is_repo_id(side) for pair in pairs for side in pair):
        raise InvalidInput('The alias table must be a JSON object {"MIRROR": "ORIGINAL"} of repo ids.')
    return {mirror.lower(): original for mirror, original in aliases.items()}
