"""Base model names as adapter configs and model cards write them, read as repo ids."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import InvalidInput
from catalog.models.repo_ref import REPO_ID_PART

SHIPPED_TABLE = Path(__file__).with_name("aliases.json")

_REPO_ID = re.compile(rf"(?:{REPO_ID_PART}/)?{REPO_ID_PART}")  # the oldest models on the Hub have no owner: gpt2
_LOCAL_PATH = re.compile(r"[/\\~.]|[A-Za-z]:[/\\]")
# the Hub client's own folder names
_CACHE_FOLDER = re.compile(rf"models--(?:({REPO_ID_PART})--)?({REPO_ID_PART})(?=[/\\]|$)")
_HUB_URL = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/")
_QUANTIZATION_SUFFIX = re.compile(r"(?:-unsloth)?-bnb-[48]bit|-AWQ|-GPTQ(?:-Int[48])?", re.IGNORECASE)
_MAX_CLAIM_CHARACTERS = 200  # characters of a claim in messages
_MAX_PATH_CHARACTERS = 4096  # characters of a path; longer claims are not searched


@dataclass(frozen=True)
class Candidate:
    """A base to try, and the evidence for it: "declared", "card", "alias" or "shapes"."""

    repo: str
    source: str


def read_claim(claim: object) -> tuple[str, str | None]:
    """Returns the repo id in a claim and None, or the (shortened) claim and the reason why it names no repo.

    A claim may be a repo id, a URL on the Hub, or a path in the cache of `huggingface_hub`.
    """
    text = claim.strip() if isinstance(claim, str) else ""
    if len(text) > _MAX_PATH_CHARACTERS:
        return text[:_MAX_CLAIM_CHARACTERS], "is not the id of a repo"
    name = _HUB_URL.sub("", text).strip("/") if _HUB_URL.match(text) else text
    if cached := _CACHE_FOLDER.search(name):
        name = "/".join(part for part in cached.groups() if part)
    elif _LOCAL_PATH.match(name):
        return text[:_MAX_CLAIM_CHARACTERS], "is a folder of the machine that trained it"
    if not is_repo_id(name):
        return str(claim)[:_MAX_CLAIM_CHARACTERS], "is not the id of a repo"
    return name, None


def is_repo_id(name: object) -> bool:
    return isinstance(name, str) and _REPO_ID.fullmatch(name) is not None and ".." not in name


class AliasTable:
    """Mirrors of base models and their originals: the shipped table, extended and overridden by an admin's.

    Mirror and original must have the same weights under the same module names, so a conversion to another architecture
    is not a mirror. Names are compared without case. Raises `InvalidInput`.
    """

    def __init__(self, aliases: Mapping[str, str]) -> None:
        self._originals = _checked(json.loads(SHIPPED_TABLE.read_text(encoding="utf-8"))) | _checked(aliases)

    def originals(self, name: str) -> list[str]:
        """The possible originals of `name`, the likeliest first: those in the table for the name and for the name
        without its quantization suffix, then the name without that suffix.
        """
        unquantized = _QUANTIZATION_SUFFIX.sub("", name, count=1)
        candidates = (self._originals.get(name.lower()), self._originals.get(unquantized.lower()), unquantized)
        return [repo for repo in dict.fromkeys(candidates) if repo and repo != name]


def _checked(aliases: Mapping[str, str]) -> dict[str, str]:
    pairs = aliases.items() if isinstance(aliases, Mapping) else [(None, None)]
    if not all(is_repo_id(side) for pair in pairs for side in pair):
        raise InvalidInput('The alias table must be a JSON object {"MIRROR": "ORIGINAL"} of repo ids.')
    return {mirror.lower(): original for mirror, original in aliases.items()}
