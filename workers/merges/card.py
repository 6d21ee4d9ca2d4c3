"""The model card of a merged adapter."""

from __future__ import annotations

from typing import Any

import yaml

from catalog.tables import Merge
from workers.merges.mergekit_config import with_commit

CARD = """\
---
{front}---

# {title}

A LoRA adapter of rank {rank} for `{base}`, which Deltadex merged from {count} adapters with PEFT's
`add_weighted_adapter`: method `{method}`{settings}.

| part | revision | weight | license |
| --- | --- | --- | --- |
{rows}

{licenses}
{mergekit}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base_repo}"), "FOLDER")
```
"""


def model_card(merge: Merge, rank: int, mergekit_file: str | None) -> str:
    """The card with the method, and the parts with their revisions, weights and licenses. The license of the parts is
    passed on if all have the same.
    """
    licenses = {part["license"] for part in merge.parts}
    [license] = licenses if len(licenses) == 1 else [None]
    datasets = sorted({name for part in merge.parts for name in part["datasets"]})
    front: dict[str, Any] = {"base_model": merge.base_repo, "library_name": "peft", "tags": ["lora", "merge"]}
    front |= {name: value for name, value in (("license", license), ("datasets", datasets)) if value}
    rows = [
        f"| {part['repo_id']} | `{part['sha']}` | {part['weight']:g} | {part['license'] or 'unknown'} |"
        for part in merge.parts
    ]
    settings = "".join(
        f", {name} {value}" for name, value in merge.settings.items() if value is not None and name != "rank"
    )
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        title=f"Merge {merge.name or merge.id}",
        rank=rank,
        base=with_commit(merge.base_repo, merge.base_sha),
        base_repo=merge.base_repo,
        count=len(merge.parts),
        method=merge.method,
        settings=settings,
        rows="\n".join(rows),
        licenses=(
            f"All parts have the license `{license}`."
            if license
            else "Check the licenses of all parts before you use the adapter."
        ),
        mergekit=(
            f"`{mergekit_file}` is a mergekit config that does the same, or nearly the same, with whole models."
            if mergekit_file
            else "mergekit has no equivalent of this method."
        ),
    )
