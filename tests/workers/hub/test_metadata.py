from __future__ import annotations

import pytest

from workers.hub.metadata import listed

ITEM: dict[str, object] = {"id": "owner/name", "sha": "0" * 40}
CARD: dict[str, object] = {"base_model": ["owner/base"], "license": "mit", "datasets": ["a"], "language": "en"}


def test_what_a_card_tells_is_listed():
    found = listed({**ITEM, "cardData": CARD})
    assert (found.repo_id, found.base, found.metadata.licence) == ("owner/name", "owner/base", "mit")
    assert (found.metadata.datasets, found.metadata.languages) == (("a",), ("en",))


@pytest.mark.parametrize("card", [None, [], "text", {}])
def test_a_model_without_a_card_is_listed(card: object):
    assert listed({**ITEM, "cardData": card}).base is None


@pytest.mark.parametrize(
    "more",
    [
        {"tags": [str(number) for number in range(1_000_000)]},  # compared with each other: hours
        {"model-index": [{"name": "n", "results": [{"task": "text"}]}]},
        {"ignore_metadata_errors": False},
        {"self": 1},
    ],
    ids=["tags", "results", "an argument", "another"],
)
def test_what_is_not_read_of_a_card_is_not_looked_at(more: dict[str, object]):
    assert listed({**ITEM, "cardData": CARD | more}).base == "owner/base"
