from __future__ import annotations

from typing import Any

import pytest
import yaml

from catalog.merges.methods import METHODS, MergeSpec
from catalog.tables import Merge
from workers.merges.card import model_card
from workers.merges.mergekit_config import mergekit_config

COMMITS = ("1" * 40, "2" * 40)


def merge(method: str, weights: tuple[float, float] = (1.0, 0.5), **part: Any) -> Merge:
    spec = MergeSpec({"owner/law": weights[0], "owner/math": weights[1]}, method, 0.3)
    parts = [
        {"repo_id": name, "sha": sha, "weight": weight, "license": "mit", "datasets": [f"{name}-rows"]} | part
        for (name, weight), sha in zip(spec.weights.items(), COMMITS, strict=True)
    ]
    base = {"base_repo": "tiny/base", "base_sha": "b" * 40}
    return Merge(id=7, name=None, method=method, settings=spec.settings, parts=parts, **base)


def parsed(row: Merge) -> tuple[dict[str, Any], str]:
    """The config and its comments."""
    text = mergekit_config(row)
    assert text is not None
    return yaml.safe_load(text), "".join(line for line in text.splitlines() if line.startswith("#"))


def test_cat_becomes_task_arithmetic():
    config, _ = parsed(merge("cat"))
    base = f"tiny/base@{'b' * 40}"
    assert config == {
        "merge_method": "task_arithmetic",
        "base_model": base,
        "models": [
            {"model": f"{base}+owner/law@{COMMITS[0]}", "parameters": {"weight": 1.0}},
            {"model": f"{base}+owner/math@{COMMITS[1]}", "parameters": {"weight": 0.5}},
        ],
        "parameters": {"normalize": False},
        "dtype": "float32",
    }


def test_ties_with_equal_weights_normalizes_and_scales():
    config, comments = parsed(merge("ties_svd", (0.5, 0.5)))
    assert config["merge_method"] == "ties"
    assert config["parameters"] == {"normalize": True, "lambda": 0.5}  # undoes the division by the sum of the weights
    assert [model["parameters"] for model in config["models"]] == [{"weight": 0.5, "density": 0.3}] * 2
    assert "differs" not in comments


def test_comments_say_where_the_result_differs():
    assert "elects signs after it applies the weights" in parsed(merge("ties_svd"))[1]
    assert "A and B separately" in parsed(merge("linear"))[1]
    assert "truncated to its rank" in parsed(merge("svd"))[1]
    assert "at random" in parsed(merge("dare_linear_svd"))[1]


@pytest.mark.parametrize("method", METHODS)
def test_only_magnitude_pruning_has_no_config(method: str):
    assert (mergekit_config(merge(method)) is None) == method.startswith("magnitude_prune")


def test_folders_have_no_commit_and_a_comment():
    config, comments = parsed(merge("cat", sha="f" * 64))
    assert config["models"][0]["model"].endswith("+owner/law")
    assert "replace their names by their paths" in comments


def test_card_has_the_license_that_all_parts_have():
    card = model_card(merge("cat"), 16, "mergekit.yml")
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["datasets"]) == ("mit", ["owner/law-rows", "owner/math-rows"])
    assert "All parts have the license `mit`" in card
    assert "license" not in yaml.safe_load(model_card(merge("cat", license=None), 16, None).split("---")[1])


def test_card_says_that_mergekit_has_no_equivalent():
    assert "mergekit has no equivalent of this method." in model_card(merge("magnitude_prune"), 8, None)
