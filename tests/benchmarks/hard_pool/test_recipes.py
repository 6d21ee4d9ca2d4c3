"""The recipes have the properties that docs/representation.md states."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.hard_pool.domains import DOMAINS, pick_docstring, pick_passage, read_rows
from benchmarks.hard_pool.recipes import RANKS, RATES, Recipe, recipes
from benchmarks.hard_pool.rows import Row


def by_label() -> dict[str, list[Recipe]]:
    groups = defaultdict(list)
    for recipe in recipes():
        groups[recipe.label].append(recipe)
    return groups


def test_ten_domains_have_four_recipes_and_three_preferences_have_three():
    counts = {label: len(group) for label, group in by_label().items()}
    assert {label: 3 if label.startswith("prefers-") else 4 for label in counts} == counts
    assert len(counts) == 13


@pytest.mark.parametrize("label", sorted(by_label()))
def test_recipes_of_a_label_share_no_rows(label: str):
    spans = sorted((recipe.first, recipe.first + recipe.rows) for recipe in by_label()[label])
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@pytest.mark.parametrize("domain", [domain.name for domain in DOMAINS])
def test_settings_are_mixed_within_every_domain(domain: str):
    group = by_label()[domain]
    assert len({recipe.rank for recipe in group}) == 4
    assert len({recipe.rate for recipe in group}) >= 3
    assert len({recipe.targets for recipe in group}) >= 2


def test_all_settings_occur():
    everything = recipes()
    assert {recipe.kind for recipe in everything} == {"lora", "dora", "ia3", "full", "dpo"}
    assert {recipe.rank for recipe in everything} >= set(RANKS)
    assert {recipe.rate for recipe in everything} >= set(RATES)
    assert {min(recipe.rows for recipe in everything), max(recipe.rows for recipe in everything)} == {40, 400}
    assert {recipe.epochs for recipe in everything} == {1, 2, 3, 4, 5}


def test_docstring_row_is_a_reversed_function_row():
    row = Row("Write a python function to add two numbers.", "", "def add(a, b): return a + b")
    assert pick_docstring(row, "mbpp", 1) == Row(
        "Write a docstring for this Python function.", "def add(a, b): return a + b", "Add two numbers."
    )
    assert pick_docstring(row, "mbpp", 0) is None


def test_passage_has_no_answer_choices():
    row = Row("Choose.", "Health: How to rest. Lie down.\nA) Run.\nB) Sleep.", "B) Sleep.")
    assert pick_passage(howto=True)(row, "hellaswag_val", 0) == Row(
        "Continue the passage.", "Health: How to rest. Lie down.", "Sleep."
    )
    assert pick_passage(howto=False)(row, "hellaswag_val", 0) is None


def test_rows_are_split_at_newlines_only(tmp_path: Path):
    text = "one\u2028two"
    line = json.dumps({"instruction": "Say.", "input": "", "output": text, "source": "x"}, ensure_ascii=False)
    (tmp_path / "rows.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert [row.output for row, _ in read_rows(tmp_path / "rows.jsonl")] == [text, text]
