from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from catalog.database import Database
from catalog.errors import ModelNotFound
from catalog.models.repository import models
from catalog.tables import ModelState, Source
from tests.support import catalog as entries


@pytest.fixture
def shelf(database: Database) -> list[str]:
    """Seven models of two owners and two bases; the last has no revision yet."""
    names = [f"{'even' if number % 2 == 0 else 'odd'}/m{number}" for number in range(6)]
    with database.transaction() as session:
        for number, name in enumerate(names):
            revision = entries.put_revision(session, name, base=f"base/{number % 3}")
            models.set_state(session, revision.model_id, ModelState.INDEXED)
        models.ensure(session, "even/new", Source.HUB)
    return [*names, "even/new"]


def listed(database: Database, **filters: object) -> list[str]:
    with database.transaction() as session:
        return [model.repo_id for model in models.page(session, **filters)]


def test_a_model_is_made_once(database: Database):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: entries.put_model(database, "a/b").id, range(16)))
    assert len(set(made)) == 1


def test_a_model_keeps_its_first_folder(database: Database):
    with database.transaction() as session:
        models.ensure(session, "local/x", Source.FOLDER, "/one")
        assert models.ensure(session, "local/x", Source.FOLDER, "/two").folder == "/one"


def test_an_unknown_model_is_not_found(database: Database):
    with pytest.raises(ModelNotFound, match="a/b"), database.transaction() as session:
        models.get(session, "a/b")


def test_pages_go_over_all_models_once_in_their_order(database: Database, shelf: list[str]):
    seen, after = [], 0
    with database.transaction() as session:
        while page := models.page(session, after=after, limit=2):
            seen += [model.repo_id for model in page]
            after = page[-1].id
    assert seen == shelf


def test_models_of_one_owner(database: Database, shelf: list[str]):
    assert listed(database, owner="even") == ["even/m0", "even/m2", "even/m4", "even/new"]
    assert listed(database, owner="eve") == []


def test_models_of_one_base(database: Database, shelf: list[str]):
    assert listed(database, base="base/1") == ["odd/m1", "even/m4"]


def test_models_of_one_state(database: Database, shelf: list[str]):
    assert listed(database, state=ModelState.PENDING) == ["even/new"]
    assert listed(database, state=ModelState.INDEXED) == shelf[:-1]


def test_filters_add_up(database: Database, shelf: list[str]):
    assert listed(database, owner="even", base="base/0", state=ModelState.INDEXED) == ["even/m0"]


def test_only_the_current_base_counts(database: Database):
    with database.transaction() as session:
        entries.put_revision(session, "a/b", "one", base="base/old")
        entries.put_revision(session, "a/b", "two", base="base/new")
    assert listed(database, base="base/old") == []
    assert listed(database, base="base/new") == ["a/b"]


def test_a_model_is_listed_once_however_many_revisions_it_has(database: Database):
    with database.transaction() as session:
        for commit in "abc":
            entries.put_revision(session, "a/b", commit)
    assert listed(database) == ["a/b"]


def test_one_revision_is_current(database: Database):
    with database.transaction() as session:
        first = entries.put_revision(session, "a/b", "one")
        entries.put_revision(session, "a/b", "two")
    with database.transaction() as session:
        assert models.get(session, "a/b").revision.sha == entries.sha("two")
        models.restore(session, first)
    with database.transaction() as session:
        assert models.get(session, "a/b").revision.sha == entries.sha("one")


def test_a_commit_that_is_stored_again_takes_the_new_facts(database: Database):
    with database.transaction() as session:
        first = entries.put_revision(session, "a/b", "one", base="base/old")
        again = entries.put_revision(session, "a/b", "one", base="base/new")
        assert (again.id, again.base_repo, again.current) == (first.id, "base/new", True)


def test_a_model_that_was_never_stored_can_fail(database: Database):
    model = entries.put_model(database)
    with database.transaction() as session:
        models.mark_failed(session, [model.id])
    with database.transaction() as session:
        assert models.get(session, model.repo_id).state == ModelState.FAILED


@pytest.mark.parametrize("state", [ModelState.INDEXED, ModelState.NO_SHIFT])
def test_a_model_that_is_stored_stays_so_when_an_update_fails(database: Database, state: ModelState):
    model = entries.put_model(database)
    with database.transaction() as session:
        models.set_state(session, model.id, state)
        models.mark_failed(session, [model.id])
    with database.transaction() as session:
        assert models.get(session, model.repo_id).state == state


def test_models_are_found_by_their_ids(database: Database, shelf: list[str]):
    with database.transaction() as session:
        found = models.by_ids(session, [1, 7, 99])
    assert {number: model.repo_id for number, model in found.items()} == {1: "even/m0", 7: "even/new"}
    assert found[7].revision is None
    assert found[1].revision.base_repo == "base/0"


def test_every_state_is_counted(database: Database, shelf: list[str]):
    with database.transaction() as session:
        counted = models.counts(session)
    assert counted == dict.fromkeys(ModelState, 0) | {ModelState.INDEXED: 6, ModelState.PENDING: 1}
