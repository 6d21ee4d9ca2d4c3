"""The model card of a merged adapter."""

from __future__ import annotations

from typing import Any

import yaml

from catalog.tables import Merge
from workers.merges.mergekit_config import pinned

CARD = """\
---
{front}---

# {title}

A LoRA adapter of rank {rank} of `{base}`, made of {count} adapters by Deltadex with PEFT's `add_weighted_adapter`:
method `{method}`{settings}.

| part | revision | weight | licence |
| --- | --- | --- | --- |
{rows}

{licences}
{recipe}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base_repo}"), "FOLDER")
```
"""


def card_of(merge: Merge, rank: int, recipe: str | None) -> str:
    """Its parents with their revisions, weights and licences, and how it was made."""
    licences = {part["licence"] for part in merge.parts}
    [licence] = licences if len(licences) == 1 else [None]
    datasets = sorted({name for part in merge.parts for name in part["datasets"]})
    front: dict[str, Any] = {"base_model": merge.base_repo, "library_name": "peft", "tags": ["lora", "merge"]}
    front |= {name: value for name, value in (("license", licence), ("datasets", datasets)) if value}
    rows = [
        f"| {part['repo_id']} | `{part['sha']}` | {part['weight']:g} | {part['licence'] or 'none known'} |"
        for part in merge.parts
    ]
    settings = "".join(
        f", {name} {value}" for name, value in merge.settings.items() if value is not None and name != "rank"
    )
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        title=f"Merge {merge.name or merge.id}",
        rank=rank,
        base=pinned(merge.base_repo, merge.base_sha),
        base_repo=merge.base_repo,
        count=len(merge.parts),
        method=merge.method,
        settings=settings,
        rows="\n".join(rows),
        licences=(
            f"All parts stand under `{licence}`." if licence else "Look at the licences of all parts before you use it."
        ),
        recipe=(
            f"`{recipe}` says how mergekit does the same, or nearly, with whole models."
            if recipe
            else "mergekit has no method that does the same."
        ),
    )
