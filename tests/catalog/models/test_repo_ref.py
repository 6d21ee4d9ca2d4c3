from __future__ import annotations

import pytest

from catalog.errors import InvalidRepoId, InvalidRevision
from catalog.models.repo_ref import RepoRef


@pytest.mark.parametrize(
    "repo_id", ["a/b", "_a/b_", "HuggingFaceTB/SmolLM2-135M-Instruct", "owner/x.y-z_1", f"{'o' * 96}/{'n' * 96}", "1/2"]
)
def test_valid_repo_id_is_accepted(repo_id: str):
    assert RepoRef(repo_id).repo_id == repo_id


@pytest.mark.parametrize(
    "repo_id",
    [
        *("", "a", "/", "a/", "/b", "a/b/c", "a//b", " a/b", "a/b ", "a/b\n", "a b/c", "a/b\0"),
        *("../b", "a/..", "./b", "a/.b", "-a/b", "a/b-", "a/b.", "a/x..y", "a\\b", "a/b?x=1", "a/b#c", "a/b@main"),
        *("https://h/a/b", "ä/b", "a/\u0661", f"a/{'n' * 97}", "a/" + "n" * 10_000),
    ],
)
def test_invalid_repo_id_is_rejected(repo_id: str):
    with pytest.raises(InvalidRepoId):
        RepoRef(repo_id)


def test_error_does_not_repeat_a_long_repo_id():
    with pytest.raises(InvalidRepoId) as raised:
        RepoRef("x" * 100_000)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("revision", ["main", "v1.0", "feature/x+y", "a" * 40, "x" * 255])
def test_branch_tag_or_commit_is_accepted(revision: str):
    assert RepoRef("a/b", revision).revision == revision


@pytest.mark.parametrize("revision", ["", "/main", "../x", "a..b", "a b", "a\n", "-x", "a~1", "a:b", "a\0", "x" * 256])
def test_invalid_revision_is_rejected(revision: str):
    with pytest.raises(InvalidRevision):
        RepoRef("a/b", revision)


@pytest.mark.parametrize(
    ("revision", "pinned"),
    [("0123456789abcdef" * 2 + "01234567", True), ("A" * 40, False), ("a" * 39, False), ("main", False), (None, False)],
)
def test_only_a_full_commit_sha_is_pinned(revision: str | None, pinned: bool):
    assert RepoRef("a/b", revision).pinned is pinned


def test_owner_is_the_part_before_the_slash():
    assert RepoRef("some-owner/name").owner == "some-owner"
