"""The mergekit config that merges the whole models by the same method, with comments on where the result differs."""

from __future__ import annotations

import re
from typing import Any

import yaml

from catalog.merges.methods import METHODS, Method
from catalog.tables import Merge

_COMMIT = re.compile(r"[0-9a-f]{40}")


def mergekit_config(merge: Merge) -> str | None:
    """YAML with comments; None if mergekit has no such method.

    A part is written BASE+ADAPTER, which mergekit merges into one model first. Repos have their commits.
    mergekit's methods: mergekit/merge_methods/generalized_task_arithmetic.py in https://github.com/arcee-ai/mergekit.
    """
    method = METHODS[merge.method]
    if method.mergekit is None:
        return None
    weights = [part["weight"] for part in merge.parts]
    equal_weights = len(set(weights)) == 1
    parameters: dict[str, Any] = {"normalize": method.elects_sign}
    if method.elects_sign and equal_weights:
        parameters["lambda"] = weights[0]  # PEFT divides by the number of parts that agree, mergekit by their weights
    base = with_commit(merge.base_repo, merge.base_sha)
    density = {"density": merge.settings["density"]} if method.prunes else {}
    config = {
        "merge_method": method.mergekit,
        "base_model": base,
        "models": [
            {
                "model": f"{base}+{with_commit(part['repo_id'], part['sha'])}",
                "parameters": {"weight": part["weight"], **density},
            }
            for part in merge.parts
        ],
        "parameters": parameters,
        "dtype": "float32",
    }
    lines = [
        f"Deltadex merged these adapters by PEFT's method {merge.method}. To merge whole models with mergekit:",
        "mergekit-yaml mergekit.yml FOLDER --lora-merge-cache ANOTHER_FOLDER",
        *_differences(method, equal_weights),
    ]
    if any(not _COMMIT.fullmatch(part["sha"]) for part in merge.parts):
        lines.append("Some parts are local folders: replace their names by their paths.")
    comments = "".join(f"# {line}\n" for line in lines)
    return comments + yaml.safe_dump(config, sort_keys=False)


def with_commit(repo: str, sha: str) -> str:
    """`repo@sha` for a repo, and the plain name for a folder, whose sha is not a commit."""
    return f"{repo}@{sha}" if _COMMIT.fullmatch(sha) else repo


def _differences(method: Method, equal_weights: bool) -> list[str]:
    differences = []
    if method.combines_factors:
        differences.append("The result differs: PEFT combined A and B separately, mergekit combines their products.")
    elif method.truncates_rank:
        differences.append("PEFT's result was truncated to its rank by an SVD.")
    if method.random:
        differences.append(
            "Other values are dropped at random, and the rest is rescaled to the same sum of magnitudes."
        )
    if method.elects_sign and not equal_weights:
        differences.append(
            "The result differs: mergekit elects signs after it applies the weights, PEFT before; and mergekit "
            "averages by the sum of the weights, PEFT by the number of parts."
        )
    return differences
