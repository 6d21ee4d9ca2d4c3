from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from sqlalchemy import event

from catalog import search
from catalog.database import Database
from catalog.errors import (
    IndexNotLoaded,
    InvalidVector,
    ModelNotFound,
    NoShift,
    NotIndexed,
    SpaceMismatch,
    SpaceNotFound,
    SpaceRequired,
)
from catalog.index import Follower
from catalog.search import Options
from tests.catalog import entries
from tests.catalog.entries import SPACE

OTHER = dataclasses.replace(SPACE, encoder_version="2")


@pytest.fixture
def index(database: Database) -> Follower:
    """Five models in a fan, then one that moves nothing, and the index of it all."""
    for number in range(5):
        entries.put(database, f"fan/m{number}", [4 - number, number])
    entries.put(database, "fan/still", [1e-9, 0], no_shift=True)
    index = Follower(database, interval=3600)
    index.catch_up()
    return index


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """The SQL that is run from here on."""
    seen: list[str] = []

    def note(_connection, _cursor, statement, *_):
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine, "before_cursor_execute", note)


def names(answer: search.Answer) -> list[str]:
    return [neighbour.model.repo_id for neighbour in answer.neighbours]


def test_the_nearest_models_come_first_and_the_model_itself_does_not(database: Database, index: Follower):
    answer = search.by_model(database, index, "fan/m0")

    assert names(answer) == ["fan/m1", "fan/m2", "fan/m3", "fan/m4"]
    similarities = [neighbour.similarity for neighbour in answer.neighbours]
    assert similarities == pytest.approx([3 / 10**0.5, 0.5**0.5, 1 / 10**0.5, 0], abs=1e-6)


def test_an_answer_says_what_it_rests_on(database: Database, index: Follower):
    answer = search.by_model(database, index, "fan/m0")
    assert (answer.space.key, answer.exact) == (SPACE.key, True)
    assert answer.covered_seq == index.index(answer.space.id, 2).covered_seq
    assert answer.neighbours[0].model.revision.base_repo == entries.BASE


def test_a_search_by_model_is_two_selects(database: Database, index: Follower, statements: list[str]):
    answer = search.by_model(database, index, "fan/m0")

    assert [neighbour.model.revision.sha for neighbour in answer.neighbours]  # loaded with the models
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT"]


def test_a_search_by_vector_is_two_selects(database: Database, index: Follower, statements: list[str]):
    assert search.by_vector(database, index, [1, 0], Options(space_key=SPACE.key)).neighbours
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT"]


def test_k_and_similarity_bound_the_answer(database: Database, index: Follower):
    assert names(search.by_model(database, index, "fan/m0", Options(k=2))) == ["fan/m1", "fan/m2"]
    assert names(search.by_model(database, index, "fan/m0", Options(min_similarity=0.9))) == ["fan/m1"]
    assert len(search.by_model(database, index, "fan/m0", Options(k=search.MAX_K)).neighbours) == 4


def test_a_vector_finds_models_in_the_one_space_of_its_dimension(database: Database, index: Follower):
    assert names(search.by_vector(database, index, [0, 9], Options(k=2))) == ["fan/m4", "fan/m3"]


def test_a_model_that_moves_nothing_is_never_a_neighbour(database: Database, index: Follower):
    assert "fan/still" not in names(search.by_vector(database, index, [1, 0], Options(k=100)))


def test_a_model_that_moves_nothing_has_no_neighbours(database: Database, index: Follower):
    with pytest.raises(NoShift):
        search.by_model(database, index, "fan/still")


def test_a_model_that_is_not_known_or_not_embedded_has_none_either(database: Database, index: Follower):
    entries.put_model(database, "fan/new")
    with pytest.raises(ModelNotFound):
        search.by_model(database, index, "fan/nobody")
    with pytest.raises(NotIndexed):
        search.by_model(database, index, "fan/new")


def test_a_space_that_is_not_known_is_said_so(database: Database, index: Follower):
    options = Options(space_key="0" * 64)
    with pytest.raises(SpaceNotFound):
        search.by_model(database, index, "fan/m0", options)
    with pytest.raises(SpaceNotFound):
        search.by_vector(database, index, [1, 0], options)


def test_a_vector_that_fits_no_space_is_refused(database: Database, index: Follower):
    with pytest.raises(SpaceMismatch):
        search.by_vector(database, index, [1, 0, 0])


def test_a_vector_does_not_cross_into_a_space_of_another_dimension(database: Database, index: Follower):
    with pytest.raises(SpaceMismatch):
        search.by_vector(database, index, [1, 0, 0], Options(space_key=SPACE.key))


def test_a_vector_that_fits_two_spaces_must_name_one(database: Database, index: Follower):
    entries.put(database, "fan/other", [1, 0], space=OTHER)
    index.catch_up()

    with pytest.raises(SpaceRequired):
        search.by_vector(database, index, [1, 0])
    assert names(search.by_vector(database, index, [1, 0], Options(space_key=OTHER.key))) == ["fan/other"]


def test_neighbours_are_of_the_models_own_space(database: Database, index: Follower):
    entries.put(database, "fan/m0", [1, 0], space=OTHER)
    entries.put(database, "fan/other", [1, 1], space=OTHER)
    index.catch_up()

    assert names(search.by_model(database, index, "fan/m0")) == ["fan/other"]
    assert "fan/other" not in names(search.by_model(database, index, "fan/m0", Options(space_key=SPACE.key)))


@pytest.mark.parametrize("vector", [[0, 0], [float("nan"), 0], [float("inf"), 0], [1e200, 0]], ids=str)
def test_a_vector_without_a_direction_is_refused(database: Database, index: Follower, vector: list[float]):
    with pytest.raises(InvalidVector):
        search.by_vector(database, index, vector)


def test_nothing_is_answered_before_the_index_is_loaded(database: Database, index: Follower):
    unread = Follower(database, interval=3600)
    with pytest.raises(IndexNotLoaded):
        search.by_model(database, unread, "fan/m0")
    with pytest.raises(IndexNotLoaded):
        search.by_vector(database, unread, [1, 0])
