"""The recipe by which mergekit makes the same of whole models, and where that is not the same."""

from __future__ import annotations

import re
from typing import Any

import yaml

from catalog.merges.methods import METHODS, Method
from catalog.tables import Merge

_COMMIT = re.compile(r"[0-9a-f]{40}")


def recipe_of(merge: Merge) -> str | None:
    """YAML with comments; None where mergekit has no such method.

    A part is written BASE+ADAPTER, which mergekit makes one model first; both with their commits where they have any.
    Its methods: mergekit/merge_methods/generalized_task_arithmetic.py in https://github.com/arcee-ai/mergekit.
    """
    how = METHODS[merge.method]
    if how.mergekit is None:
        return None
    weights = [part["weight"] for part in merge.parts]
    parameters: dict[str, Any] = {"normalize": how.elects}
    if how.elects and len(set(weights)) == 1:
        parameters["lambda"] = weights[0]  # PEFT divides by how many parts agree, mergekit by the sum of their weights
    base = pinned(merge.base_repo, merge.base_sha)
    density = {"density": merge.settings["density"]} if how.prunes else {}
    recipe = {
        "merge_method": how.mergekit,
        "base_model": base,
        "models": [
            {
                "model": f"{base}+{pinned(part['repo_id'], part['sha'])}",
                "parameters": {"weight": part["weight"], **density},
            }
            for part in merge.parts
        ],
        "parameters": parameters,
        "dtype": "float32",
    }
    told = [
        f"Deltadex merged these adapters by PEFT's method {merge.method}. With mergekit, which makes a whole model:",
        "mergekit-yaml mergekit.yml FOLDER --lora-merge-cache ANOTHER_FOLDER",
        *_differences(how, len(set(weights)) == 1),
    ]
    if any(not _COMMIT.fullmatch(part["sha"]) for part in merge.parts):
        told.append("Some parts were folders: put their paths in place of their names.")
    comments = "".join(f"# {line}\n" for line in told)
    return comments + yaml.safe_dump(recipe, sort_keys=False)


def pinned(repo: str, sha: str) -> str:
    return f"{repo}@{sha}" if _COMMIT.fullmatch(sha) else repo


def _differences(how: Method, even: bool) -> list[str]:
    told = []
    if how.factors:
        told.append("Not quite: PEFT combined A and B each by themselves, mergekit combines what they come to.")
    elif how.cuts:
        told.append("PEFT's result was cut to its rank by an SVD.")
    if how.random:
        told.append("Other numbers are dropped by chance, and what is left is scaled to the same sum of magnitudes.")
    if how.elects and not even:
        told.append(
            "Not quite: mergekit elects signs after weighing, PEFT before; and it averages uneven weights otherwise."
        )
    return told
