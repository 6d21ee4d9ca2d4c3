"""The table of settings keeps what the study says of it."""

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
    found = defaultdict(list)
    for recipe in recipes():
        found[recipe.label].append(recipe)
    return found


def test_ten_domains_of_four_and_three_preferences_of_three():
    counts = {label: len(group) for label, group in by_label().items()}
    assert {label: 3 if label.startswith("prefers-") else 4 for label in counts} == counts
    assert len(counts) == 13


@pytest.mark.parametrize("label", sorted(by_label()))
def test_no_two_of_a_label_share_a_row(label: str):
    spans = sorted((each.first, each.first + each.rows) for each in by_label()[label])
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@pytest.mark.parametrize("domain", [domain.name for domain in DOMAINS])
def test_settings_are_mixed_inside_every_domain(domain: str):
    group = by_label()[domain]
    assert len({each.rank for each in group}) == 4
    assert len({each.rate for each in group}) >= 3
    assert len({each.targets for each in group}) >= 2


def test_all_settings_of_the_issue_occur():
    every = recipes()
    assert {each.kind for each in every} == {"lora", "dora", "ia3", "full", "dpo"}
    assert {each.rank for each in every} >= set(RANKS)
    assert {each.rate for each in every} >= set(RATES)
    assert {min(each.rows for each in every), max(each.rows for each in every)} == {40, 400}
    assert {each.epochs for each in every} == {1, 2, 3, 4, 5}


def test_a_docstring_row_is_a_function_row_turned_round():
    row = Row("Write a python function to add two numbers.", "", "def add(a, b): return a + b")
    assert pick_docstring(row, "mbpp", 1) == Row(
        "Write a docstring for this Python function.", "def add(a, b): return a + b", "Add two numbers."
    )
    assert pick_docstring(row, "mbpp", 0) is None


def test_a_passage_loses_its_choices():
    row = Row("Choose.", "Health: How to rest. Lie down.\nA) Run.\nB) Sleep.", "B) Sleep.")
    assert pick_passage(howto=True)(row, "hellaswag_val", 0) == Row(
        "Continue the passage.", "Health: How to rest. Lie down.", "Sleep."
    )
    assert pick_passage(howto=False)(row, "hellaswag_val", 0) is None


def test_rows_end_where_lines_of_json_end(tmp_path: Path):
    text = "one\u2028two"
    line = json.dumps({"instruction": "Say.", "input": "", "output": text, "source": "x"}, ensure_ascii=False)
    (tmp_path / "rows.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert [row.output for row, _ in read_rows(tmp_path / "rows.jsonl")] == [text, text]
