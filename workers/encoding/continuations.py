"""The texts that `delta_meaning` scores. They are versioned data: a change makes a new version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "continuation_sets" / "continuations-2.json"


@dataclass(frozen=True)
class Continuations:
    """M texts of several domains and languages. The name is part of the space of vectors measured with them."""

    name: str
    texts: tuple[str, ...]


def load_continuations(path: Path) -> Continuations:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Continuations(content["name"], tuple(entry["text"] for entry in content["continuations"]))


CONTINUATIONS = load_continuations(FILE)
