from __future__ import annotations

import pytest

from workers.hub.metadata import base_relation, parse_entry, read_info

ITEM: dict[str, object] = {"id": "owner/name", "sha": "0" * 40}
CARD: dict[str, object] = {"base_model": ["owner/base"], "license": "mit", "datasets": ["a"], "language": "en"}


def test_card_fields_are_parsed():
    entry = parse_entry({**ITEM, "cardData": CARD})
    assert (entry.repo_id, entry.base, entry.metadata.license) == ("owner/name", "owner/base", "mit")
    assert (entry.metadata.datasets, entry.metadata.languages) == (("a",), ("en",))


def test_license_of_its_own_has_the_name_that_the_card_gives():
    card = CARD | {"license": "other", "license_name": "llama3.2"}
    assert parse_entry({**ITEM, "cardData": card}).metadata.license == "llama3.2"
    assert parse_entry({**ITEM, "cardData": CARD | {"license": "other"}}).metadata.license == "other"


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


@pytest.mark.parametrize(
    ("parameters", "size"),
    [({"U32": 10, "BF16": 2}, 44), ({"F64": 1, "U16": 3, "F8_E4M3": 5}, 19), ({"F4": 6}, 3), ({"NEW": 7}, 7)],
)
def test_size_counts_the_bytes_of_each_dtype(parameters: dict[str, int], size: int):
    item = {**ITEM, "safetensors": {"parameters": parameters, "total": sum(parameters.values())}}
    assert parse_entry(item).size == size


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "text",
        {"models": None},
        {"models": []},
        {"models": ["a/b"]},
        {"models": [{"id": "a/b"}, {"id": "c/d"}]},
    ],
)
def test_bases_that_the_hub_did_not_resolve_to_one_are_ignored(value: object):
    assert parse_entry({**ITEM, "baseModels": value}).base is None
