from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from catalog.database import Database
from catalog.errors import ModelNotFound
from catalog.models.repository import models
from catalog.tables import ModelState, Source
from tests.support import catalog as entries


@pytest.fixture
def stored_models(database: Database) -> list[str]:
    """Seven models of two owners and two bases; the last has no revision yet."""
    names = [f"{'even' if number % 2 == 0 else 'odd'}/m{number}" for number in range(6)]
    with database.transaction() as session:
        for number, name in enumerate(names):
            revision = entries.put_revision(session, name, base=f"base/{number % 3}")
            models.set_state(session, revision.model_id, ModelState.INDEXED)
        models.get_or_create(session, "even/new", Source.HUB)
    return [*names, "even/new"]


def listed(database: Database, **filters: object) -> list[str]:
    with database.transaction() as session:
        return [model.repo_id for model in models.list_page(session, **filters)]


def test_concurrent_calls_create_one_model(database: Database):
    with ThreadPoolExecutor(8) as pool:
        model_ids = list(pool.map(lambda _: entries.put_model(database, "a/b").id, range(16)))
    assert len(set(model_ids)) == 1


def test_model_keeps_its_first_folder(database: Database):
    with database.transaction() as session:
        models.get_or_create(session, "local/x", Source.FOLDER, "/one")
        assert models.get_or_create(session, "local/x", Source.FOLDER, "/two").folder == "/one"


def test_unknown_model_raises_model_not_found(database: Database):
    with pytest.raises(ModelNotFound, match="a/b"), database.transaction() as session:
        models.get(session, "a/b")


def test_pages_contain_each_model_once_in_order(database: Database, stored_models: list[str]):
    repo_ids, after = [], 0
    with database.transaction() as session:
        while page := models.list_page(session, after=after, limit=2):
            repo_ids += [model.repo_id for model in page]
            after = page[-1].id
    assert repo_ids == stored_models


def test_list_is_filtered_by_owner(database: Database, stored_models: list[str]):
    assert listed(database, owner="even") == ["even/m0", "even/m2", "even/m4", "even/new"]
    assert listed(database, owner="eve") == []


def test_list_is_filtered_by_base(database: Database, stored_models: list[str]):
    assert listed(database, base="base/1") == ["odd/m1", "even/m4"]


def test_list_is_filtered_by_state(database: Database, stored_models: list[str]):
    assert listed(database, state=ModelState.PENDING) == ["even/new"]
    assert listed(database, state=ModelState.INDEXED) == stored_models[:-1]


def test_filters_are_combined(database: Database, stored_models: list[str]):
    assert listed(database, owner="even", base="base/0", state=ModelState.INDEXED) == ["even/m0"]


def test_base_filter_uses_the_current_revision(database: Database):
    with database.transaction() as session:
        entries.put_revision(session, "a/b", "one", base="base/old")
        entries.put_revision(session, "a/b", "two", base="base/new")
    assert listed(database, base="base/old") == []
    assert listed(database, base="base/new") == ["a/b"]


def test_model_with_several_revisions_is_listed_once(database: Database):
    with database.transaction() as session:
        for commit in "abc":
            entries.put_revision(session, "a/b", commit)
    assert listed(database) == ["a/b"]


def test_storing_a_commit_again_updates_the_revision(database: Database):
    with database.transaction() as session:
        first = entries.put_revision(session, "a/b", "one", base="base/old")
        again = entries.put_revision(session, "a/b", "one", base="base/new")
        assert (again.id, again.base_repo, again.current) == (first.id, "base/new", True)


def test_past_revision_leaves_the_current_one(database: Database):
    with database.transaction() as session:
        entries.put_revision(session, "a/b", "one")
        model, fields = models.get(session, "a/b"), {"kind": "lora", "base_sha": "b" * 40, "evidence": {}}
        past = models.store_revision(
            session, model.id, entries.sha("two"), current=False, base_repo="base/other", **fields
        )
        assert not past.current
    with database.transaction() as session:
        assert models.get(session, "a/b").revision.sha == entries.sha("one")


def test_pending_model_is_marked_failed(database: Database):
    model = entries.put_model(database)
    with database.transaction() as session:
        models.mark_failed(session, [model.id])
    with database.transaction() as session:
        assert models.get(session, model.repo_id).state == ModelState.FAILED


@pytest.mark.parametrize("state", [ModelState.INDEXED, ModelState.NO_SHIFT])
def test_stored_model_keeps_its_state_when_an_update_fails(database: Database, state: ModelState):
    model = entries.put_model(database)
    with database.transaction() as session:
        models.set_state(session, model.id, state)
        models.mark_failed(session, [model.id])
    with database.transaction() as session:
        assert models.get(session, model.repo_id).state == state


def test_get_by_ids_leaves_out_unknown_ids(database: Database, stored_models: list[str]):
    with database.transaction() as session:
        by_id = models.get_by_ids(session, [1, 7, 99])
    assert {number: model.repo_id for number, model in by_id.items()} == {1: "even/m0", 7: "even/new"}
    assert by_id[7].revision is None
    assert by_id[1].revision.base_repo == "base/0"


def test_count_by_state_includes_every_state(database: Database, stored_models: list[str]):
    with database.transaction() as session:
        counts = models.count_by_state(session)
    assert counts == dict.fromkeys(ModelState, 0) | {ModelState.INDEXED: 6, ModelState.PENDING: 1}
