"""The prompts of the studies. The files are versioned: a change is a new version, never an edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from catalog.spaces.probes import ProbeSet, load_probes

FOLDER = Path(__file__).parent / "prompts"


def generic_probes() -> ProbeSet:
    """Twenty paraphrases of one generic request. The first five are the default set."""
    content = _read("generic-20-1.json")
    prompts = (content["template"].replace("{opening}", opening) for opening in content["openings"])
    return ProbeSet(content["name"], tuple(prompts))


def probe_kinds() -> dict[str, ProbeSet]:
    """Five prompts each: generic requests (the default set), requests of five domains, plain text, single words."""
    content = _read("kinds-1.json")
    kinds = {kind: ProbeSet(f"{content['name']}/{kind}", tuple(texts)) for kind, texts in content["kinds"].items()}
    return {"generic": load_probes(), **kinds}


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return content
