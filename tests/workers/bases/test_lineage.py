from __future__ import annotations

import pytest

from workers.bases.lineage import MAX_REPOS, Lineage


def common_root(names: list[str], bases: dict[str, list[str]]) -> str | None:
    return Lineage(lambda name: (name, bases.get(name, []))).common_root(names)


@pytest.mark.parametrize(
    ("bases", "root"),
    [
        ({"one": ["base"], "two": ["base"]}, "base"),
        ({"one": ["first"], "first": ["base"], "two": ["base"]}, "base"),
        ({"one": ["chat"], "two": ["chat"], "chat": ["base"]}, "chat"),
        ({"one": ["two"]}, "two"),
        ({"one": ["merge"], "merge": ["a", "b"], "a": ["base"], "b": ["base"], "two": ["base"]}, "base"),
        ({"one": ["merge"], "merge": ["base", "other"], "two": ["base"]}, None),
        ({"one": ["base"], "two": ["other"]}, None),
        ({}, None),
    ],
    ids=["siblings", "depths", "nearest", "a parent", "through a merge", "half of a merge", "none", "no bases"],
)
def test_common_root_is_the_nearest_model_of_all(bases: dict[str, list[str]], root: str | None):
    assert common_root(["one", "two"], bases) == root


def test_circle_of_cards_ends():
    assert common_root(["one", "two"], {"one": ["two"], "two": ["one"]}) in ("one", "two")
    assert common_root(["one", "other"], {"one": ["one"], "other": ["other"]}) is None


def test_number_of_repos_that_are_read_is_bounded():
    requested: list[str] = []

    def bases_of(name: str) -> tuple[str, list[str]]:
        requested.append(name)
        return name, [f"{name}/{number}" for number in range(50)]

    assert Lineage(bases_of).common_root(["one", "two"]) is None
    assert len(requested) == MAX_REPOS
