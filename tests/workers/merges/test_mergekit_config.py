from __future__ import annotations

from typing import Any

import pytest
import yaml

from catalog.merges.methods import METHODS, Blend
from catalog.tables import Merge
from workers.merges.card import card_of
from workers.merges.mergekit_config import recipe_of

COMMITS = ("1" * 40, "2" * 40)


def merge(method: str, weights: tuple[float, float] = (1.0, 0.5), **part: Any) -> Merge:
    blend = Blend({"owner/law": weights[0], "owner/math": weights[1]}, method, 0.3)
    parts = [
        {"repo_id": name, "sha": sha, "weight": weight, "licence": "mit", "datasets": [f"{name}-rows"]} | part
        for (name, weight), sha in zip(blend.weights.items(), COMMITS, strict=True)
    ]
    base = {"base_repo": "tiny/base", "base_sha": "b" * 40}
    return Merge(id=7, name=None, method=method, settings=blend.settings, parts=parts, **base)


def parsed(made: Merge) -> tuple[dict[str, Any], str]:
    """The recipe, and its comments."""
    text = recipe_of(made)
    assert text is not None
    return yaml.safe_load(text), "".join(line for line in text.splitlines() if line.startswith("#"))


def test_a_weighted_sum_is_mergekits_task_arithmetic():
    recipe, _ = parsed(merge("cat"))
    base = f"tiny/base@{'b' * 40}"
    assert recipe == {
        "merge_method": "task_arithmetic",
        "base_model": base,
        "models": [
            {"model": f"{base}+owner/law@{COMMITS[0]}", "parameters": {"weight": 1.0}},
            {"model": f"{base}+owner/math@{COMMITS[1]}", "parameters": {"weight": 0.5}},
        ],
        "parameters": {"normalize": False},
        "dtype": "float32",
    }


def test_what_ties_averages_mergekit_averages_too():
    recipe, comments = parsed(merge("ties_svd", (0.5, 0.5)))
    assert recipe["merge_method"] == "ties"
    assert recipe["parameters"] == {"normalize": True, "lambda": 0.5}  # mergekit divides by the weights as well
    assert [each["parameters"] for each in recipe["models"]] == [{"weight": 0.5, "density": 0.3}] * 2
    assert "Not quite" not in comments


def test_where_it_is_not_the_same_it_says_so():
    assert "elects signs after weighing" in parsed(merge("ties_svd"))[1]
    assert "A and B each by themselves" in parsed(merge("linear"))[1]
    assert "cut to its rank" in parsed(merge("svd"))[1]
    assert "by chance" in parsed(merge("dare_linear_svd"))[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_mergekit_has_not_has_no_recipe(method: str):
    assert (recipe_of(merge(method)) is None) == method.startswith("magnitude_prune")


def test_folders_have_no_commit():
    recipe, comments = parsed(merge("cat", sha="f" * 64))
    assert recipe["models"][0]["model"].endswith("+owner/law")
    assert "put their paths" in comments


def test_a_card_takes_a_licence_over_that_all_parts_have():
    card = card_of(merge("cat"), 16, "mergekit.yml")
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["datasets"]) == ("mit", ["owner/law-rows", "owner/math-rows"])
    assert "All parts stand under `mit`" in card
    assert "license" not in yaml.safe_load(card_of(merge("cat", licence=None), 16, None).split("---")[1])


def test_a_card_says_where_mergekit_has_nothing_like_it():
    assert "mergekit has no method that does the same." in card_of(merge("magnitude_prune"), 8, None)
