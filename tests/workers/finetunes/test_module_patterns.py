"""Patterns of a config, compared with PEFT."""

from __future__ import annotations

import random
import re

import pytest
from peft.utils.other import get_pattern_key

from catalog.errors import InvalidAdapterConfig
from workers.finetunes.module_patterns import MAX_EXPRESSIONS, ModulePatterns

NAMES = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.11.self_attn.q_proj",
    "model.layers.1.self_attn.my_q_proj",
    "model.layers.1.mlp.experts.7.down_proj",
    "model.layers.1.mlp_experts.7.down_proj",
    "model.visual-tower.layers.1.q_proj",
    "q_proj",
    "lm_head",
]
PATTERNS = [
    "q_proj",
    "self_attn.q_proj",
    r"self_attn\.q_proj",
    "model.layers.1.self_attn.q_proj",
    "^model.layers.1.self_attn.q_proj",
    r"^model\.layers\.1\.self_attn\.q_proj$",
    "^q_proj",
    "q_proj$",
    "mlp.experts.7.down_proj",
    re.escape("model.visual-tower.layers.1.q_proj"),
    "",
    "layers.1",
    ".*",
    r".*\.q_proj",
    r"layers\.(0|1)\..*",
    "[qk]_proj|lm_head",
    "lm_head)|(q_proj",
    r"\d+\.self_attn\.\w+",
    "(a|aa)+x",
    "(?P<layer>layers)?.*[^a-p]_proj",
    r"(?:model\.)?layers\.\d{1,1}\..*",
    r"(model\.)?layers\.1\..*",
    r"^(model\.)?layers\.1\..*",
    r"(model\.)?(layers\.)?1\.self_attn\.q_proj$",
    r"model\.layers\.([0-9]|1[01])\.self_attn\.(q|k|v|o)_proj",
    r".*\.layers\.(?:1|11)\..*(q_proj|k_proj|v_proj|o_proj)$",
    r"(self_attn|mlp)\..*?_proj",
    r"[^.]*q\_proj",
    r"\bq_proj\b",
    r"(?i:Q_PROJ)",
    r"layers\.1\.[\w.]+",
]


def value_in_peft(patterns: dict[str, int], name: str) -> int | None:
    return patterns.get(get_pattern_key(patterns.keys(), name))


def value_of_inner_in_peft(patterns: dict[str, int], name: str) -> int | None:
    """As PEFT looks patterns up for C3A and FourierFT."""
    return patterns.get(next((key for key in patterns if re.match(rf".*\.{key}$", name)), name))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_matches_as_in_peft(pattern: str):
    patterns = ModulePatterns({"rank_pattern": {pattern: 3}}, "rank_pattern")
    assert [patterns.value(name, None) for name in NAMES] == [value_in_peft({pattern: 3}, name) for name in NAMES]


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if ")|(" not in pattern])
def test_inner_pattern_matches_as_in_peft(pattern: str):
    patterns = ModulePatterns({"block_size_pattern": {pattern: 3}}, "block_size_pattern", inner=True)
    expected = [value_of_inner_in_peft({pattern: 3}, name) for name in NAMES]
    assert [patterns.value(name, None) for name in NAMES] == expected


def test_first_matching_pattern_applies_as_in_peft():
    generator = random.Random(0)
    for _ in range(300):
        pattern_values = {pattern: number for number, pattern in enumerate(generator.sample(PATTERNS, 6))}
        patterns = ModulePatterns({"alpha_pattern": pattern_values}, "alpha_pattern")
        for name in NAMES:
            assert patterns.value(name, None) == value_in_peft(pattern_values, name)


def test_many_plain_names_are_found():
    names = [f"model.layers.{layer}.mlp.experts.{expert}.up_proj" for layer in range(48) for expert in range(128)]
    patterns = ModulePatterns({"rank_pattern": {name: number for number, name in enumerate(names)}}, "rank_pattern")
    assert [patterns.value(name, None) for name in names] == list(range(len(names)))


def test_default_applies_without_a_match():
    assert ModulePatterns({"rank_pattern": {"k_proj": 3}}, "rank_pattern").value("q_proj", 8) == 8
    assert ModulePatterns({"rank_pattern": None}, "rank_pattern").value("q_proj", 8) == 8


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=q)q_proj",
        "(?<!k)_proj",
        r"(q)_\1",
        "(?P<a>q)(?P=a)",
        "(?>q)_proj",
        "q{,3}_proj",
        "[[:alpha:]]_proj",
        "(q_proj",
        "*",
        "q" * 401,
        "x{1000}" * 50,
        r"\pL" * 100,
        "\ud800*",
    ],
)
def test_unsafe_pattern_is_rejected_by_name(pattern: str):
    with pytest.raises(InvalidAdapterConfig, match=r"rank_pattern: .* cannot be matched safely") as raised:
        ModulePatterns({"rank_pattern": {"o_proj": 2, pattern: 3}}, "rank_pattern")
    assert repr(pattern[:80]) in str(raised.value)


def test_patterns_that_are_not_an_object_are_rejected():
    with pytest.raises(InvalidAdapterConfig, match="not a JSON object"):
        ModulePatterns({"rank_pattern": ["q_proj"]}, "rank_pattern")


def test_too_many_regular_expressions_are_rejected():
    with pytest.raises(InvalidAdapterConfig, match="name the modules"):
        ModulePatterns({"rank_pattern": {f".*{number}": 3 for number in range(MAX_EXPRESSIONS + 1)}}, "rank_pattern")


@pytest.mark.parametrize(
    "pattern_values",
    [
        {f"(a?){{300}}.*{number}": 3 for number in range(MAX_EXPRESSIONS)},
        {f"{number:b}".zfill(20).replace("0", ".").replace("1", r"\.") + "a" * 40: 3 for number in range(20_000)},
    ],
    ids=["regular expressions", "names with dots in other places"],
)
def test_cost_of_all_lookups_is_bounded(pattern_values: dict[str, int]):
    patterns = ModulePatterns({"rank_pattern": pattern_values}, "rank_pattern")
    names = [f"{number}." + "b" * 20 + "a" * 40 for number in range(100_000)]
    with pytest.raises(InvalidAdapterConfig, match="too many patterns for so many modules"):
        [patterns.value(name, None) for name in names]
