from __future__ import annotations

import dataclasses

import pytest

from catalog.spaces.contract import Space

SPACE = Space("delta_activations", -1, "tiny/base", "b" * 40, "c" * 64, "float32", "1")


def test_key_never_changes():
    # stored vectors refer to their space by this key, so a change of its computation would orphan them all
    assert SPACE.key == "efde53958900fc954ffb6d0080737ea513e64d7a211b807a99fbcba253ee861e"


def test_key_of_a_space_without_a_base_never_changes():
    space = dataclasses.replace(SPACE, feature="delta_meaning", base_repo=None, base_sha=None)
    assert space.key == "7cf1ea0e77b016f64f7e2157ba405a969a1b80b48912d480b36b8843fd85dfde"


@pytest.mark.parametrize(
    "change",
    [
        *({"feature": "delta_logits"}, {"layer": 0}, {"base_repo": "tiny/other"}, {"base_repo": None}),
        *({"base_sha": "d" * 40}, {"probe_set": "e" * 64}, {"dtype": "bfloat16"}, {"encoder_version": "2"}),
        {"edition": 1},
    ],
    ids=str,
)
def test_key_depends_on_each_field(change: dict):
    assert dataclasses.replace(SPACE, **change).key != SPACE.key


def test_key_test_covers_every_field():
    assert {field.name for field in dataclasses.fields(Space)} == {
        *("feature", "layer", "base_repo", "base_sha", "probe_set", "dtype", "encoder_version"),
        "edition",
    }


def test_dictionary_has_every_field_and_the_key():
    content = SPACE.as_dict()
    assert content.pop("key") == SPACE.key
    assert Space(**content) == SPACE
