from __future__ import annotations

import pytest

from workers.hub.metadata import base_relation, parse_entry, read_info

ITEM: dict[str, object] = {"id": "owner/name", "sha": "0" * 40}
CARD: dict[str, object] = {"base_model": ["owner/base"], "license": "mit", "datasets": ["a"], "language": "en"}


def test_card_fields_are_parsed():
    entry = parse_entry({**ITEM, "cardData": CARD})
    assert (entry.repo_id, entry.base, entry.metadata.license) == ("owner/name", "owner/base", "mit")
    assert (entry.metadata.datasets, entry.metadata.languages) == (("a",), ("en",))


@pytest.mark.parametrize("card", [None, [], "text", {}])
def test_model_without_a_card_is_parsed(card: object):
    assert parse_entry({**ITEM, "cardData": card}).base is None


@pytest.mark.parametrize(
    "more",
    [
        {
            "tags": [str(number) for number in range(1_000_000)]
        },  # the library compares them with each other, which takes hours
        {"model-index": [{"name": "n", "results": [{"task": "text"}]}]},
        {"ignore_metadata_errors": False},
        {"self": 1},
    ],
    ids=["tags", "results", "an argument", "another"],
)
def test_unused_card_fields_are_ignored(more: dict[str, object]):
    assert parse_entry({**ITEM, "cardData": CARD | more}).base == "owner/base"


@pytest.mark.parametrize(
    ("fields", "relation"),
    [
        ({"cardData": {"base_model_relation": "quantized"}, "tags": ["base_model:finetune:o/n"]}, "quantized"),
        ({"tags": ["base_model:o/n", "base_model:quantized:o/n"]}, "quantized"),
        ({"tags": ["base_model:o/n"]}, None),
        ({"cardData": {"base_model_relation": ["quantized"]}}, None),
        ({}, None),
    ],
)
def test_relation_to_the_base_is_read_from_card_and_tags(fields: dict[str, object], relation: str | None):
    assert base_relation(read_info({**ITEM, **fields})) == relation
