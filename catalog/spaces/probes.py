"""Probe sets: the few generic prompts that every model is measured on, as versioned data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import InvalidProbeSet

DEFAULT = Path(__file__).parent / "probe_sets" / "default-1.json"
MAX_PROBES = 64
MAX_CHARACTERS = 8_000


@dataclass(frozen=True)
class ProbeSet:
    """A list of 1 to 64 prompts, identified by its sha256, which does not depend on the name.

    Raises `InvalidProbeSet`.
    """

    name: str
    prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.prompts) <= MAX_PROBES:
            raise InvalidProbeSet(
                f"{self.name} has {len(self.prompts)} prompts; a probe set must have 1 to {MAX_PROBES}."
            )
        for number, prompt in enumerate(self.prompts, 1):
            if not isinstance(prompt, str) or not prompt.strip():
                raise InvalidProbeSet(f"Prompt {number} of {self.name} must be a string that is not blank.")
            if len(prompt) > MAX_CHARACTERS:
                raise InvalidProbeSet(f"Prompt {number} of {self.name} is longer than {MAX_CHARACTERS} characters.")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.prompts, ensure_ascii=True).encode()).hexdigest()


def load_probes(path: Path | None = None) -> ProbeSet:
    """Load a probe set from a JSON file, either a list of prompts or `{"name": ..., "prompts": [...]}`.

    Without a path, load the default set. Raises `InvalidProbeSet`.
    """
    path = path or DEFAULT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidProbeSet(f"{path} cannot be read as JSON: {error}.") from error
    if isinstance(content, list):
        content = {"name": path.stem, "prompts": content}
    if not isinstance(content, dict) or not isinstance(content.get("prompts"), list):
        raise InvalidProbeSet(f'{path} is neither a list of prompts nor {{"name": ..., "prompts": [...]}}.')
    return ProbeSet(str(content.get("name", path.stem)), tuple(content["prompts"]))
