"""Entries of the quarantine, and files that end their readers."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from sqlalchemy.orm import Session

from catalog.errors import WorkerLost
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from tests.support import pico

LIMIT = 2  # ends of processes
HARD_PATTERN = r"((\w|\s)+)+\d$"  # makes the tokenizer's regex engine give up and panic
READER_MEMORY = 2**26  # bytes, which `make_vast_adapter` exceeds


def put_quarantine(session: Session, repo_id: str, sha: str = "") -> None:
    """Quarantine a repo at a commit, or at all of them."""
    key = QuarantineKey.of_repo(repo_id, sha)
    assert quarantine.count(session, key, WorkerLost("The worker died."), LIMIT, ends=LIMIT)


def put_quarantined_base(session: Session, repo_id: str, sha: str) -> None:
    key = QuarantineKey.of_base(repo_id, sha)
    assert quarantine.count(session, key, WorkerLost("The worker died."), LIMIT, ends=LIMIT)


def make_crashing_base(folder: Path) -> Path:
    """A base whose tokenizer ends the reader that uses it."""
    file = pico.make_base(folder) / "tokenizer.json"
    content = json.loads(file.read_text())
    split = {"type": "Split", "pattern": {"Regex": HARD_PATTERN}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, content["pre_tokenizer"]]}
    file.write_text(json.dumps(content))
    return folder


def make_vast_adapter(folder: Path, *, base: str) -> Path:
    """An adapter whose safetensors header takes more memory than `READER_MEMORY` to parse."""
    file = pico.make_adapter(folder, base=base) / "adapter_model.safetensors"
    save_file(load_file(file), file, metadata={f"{number:06}": "x" for number in range(1_000_000)})
    return folder
