from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest

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
from catalog.index.filters import Filters
from catalog.index.follower import Follower
from catalog.models.repository import models
from catalog.models.repository.models import Metadata
from catalog.search import service as search_service
from catalog.search.reranking import Page
from catalog.search.service import Options
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseTable
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.catalog import SPACE

OTHER = dataclasses.replace(SPACE, base_repo="tiny/other")


@pytest.fixture
def index(database: Database) -> Follower:
    """Five models in a fan, then one that moves nothing, and the index of it all."""
    for number in range(5):
        entries.put(database, f"fan/m{number}", [4 - number, number])
    entries.put(database, "fan/still", [1e-9, 0], no_shift=True)
    index = Follower(database, interval=3600)
    index.catch_up()
    return index


def names(answer: search_service.Answer) -> list[str]:
    return [neighbour.model.repo_id for neighbour in answer.neighbours]


def test_the_nearest_models_come_first_and_the_model_itself_does_not(database: Database, index: Follower):
    answer = search_service.by_model(database, index, "fan/m0")

    assert names(answer) == ["fan/m1", "fan/m2", "fan/m3", "fan/m4"]
    similarities = [neighbour.similarity for neighbour in answer.neighbours]
    assert similarities == pytest.approx([3 / 10**0.5, 0.5**0.5, 1 / 10**0.5, 0], abs=1e-6)


def test_an_answer_says_what_it_rests_on(database: Database, index: Follower):
    answer = search_service.by_model(database, index, "fan/m0")
    assert (answer.space.key, answer.exact) == (SPACE.key, True)
    assert answer.covered_seq == index.index(answer.space.id, 2).covered_seq
    assert answer.neighbours[0].model.revision.base_repo == entries.BASE


def test_a_search_by_model_is_two_selects(database: Database, index: Follower, statements: list[str]):
    search_service.by_model(database, index, "fan/m0")  # loads the space
    statements.clear()
    answer = search_service.by_model(database, index, "fan/m0")

    assert [neighbour.model.revision.sha for neighbour in answer.neighbours]  # loaded with the models
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT"]


def test_a_search_by_vector_is_three_selects(database: Database, index: Follower, statements: list[str]):
    search_service.by_model(database, index, "fan/m0")
    statements.clear()
    assert search_service.by_vector(database, index, [1, 0], Options(space_key=SPACE.key)).neighbours
    assert [statement.split()[0] for statement in statements] == ["SELECT"] * 3


def test_k_and_similarity_bound_the_answer(database: Database, index: Follower):
    assert names(search_service.by_model(database, index, "fan/m0", Options(Page(k=2)))) == ["fan/m1", "fan/m2"]
    assert names(search_service.by_model(database, index, "fan/m0", Options(Page(min_similarity=0.9)))) == ["fan/m1"]
    assert (
        len(search_service.by_model(database, index, "fan/m0", Options(Page(k=search_service.MAX_K))).neighbours) == 4
    )


def test_a_vector_finds_models_in_the_one_space_of_its_dimension(database: Database, index: Follower):
    assert names(search_service.by_vector(database, index, [0, 9], Options(Page(k=2)))) == ["fan/m4", "fan/m3"]


def test_a_model_that_moves_nothing_is_never_a_neighbour(database: Database, index: Follower):
    assert "fan/still" not in names(search_service.by_vector(database, index, [1, 0], Options(Page(k=100))))


def test_a_model_that_moves_nothing_has_no_neighbours(database: Database, index: Follower):
    with pytest.raises(NoShift):
        search_service.by_model(database, index, "fan/still")


def test_a_model_that_is_not_known_or_not_embedded_has_none_either(database: Database, index: Follower):
    entries.put_model(database, "fan/new")
    with pytest.raises(ModelNotFound):
        search_service.by_model(database, index, "fan/nobody")
    with pytest.raises(NotIndexed):
        search_service.by_model(database, index, "fan/new")


def test_a_space_that_is_not_known_is_said_so(database: Database, index: Follower):
    options = Options(space_key="0" * 64)
    with pytest.raises(SpaceNotFound):
        search_service.by_model(database, index, "fan/m0", options)
    with pytest.raises(SpaceNotFound):
        search_service.by_vector(database, index, [1, 0], options)


def test_a_vector_that_fits_no_space_is_refused(database: Database, index: Follower):
    with pytest.raises(SpaceMismatch):
        search_service.by_vector(database, index, [1, 0, 0])


def test_a_vector_does_not_cross_into_a_space_of_another_dimension(database: Database, index: Follower):
    with pytest.raises(SpaceMismatch):
        search_service.by_vector(database, index, [1, 0, 0], Options(space_key=SPACE.key))


def test_a_vector_that_fits_two_spaces_must_name_one(database: Database, index: Follower):
    entries.put(database, "fan/other", [1, 0], space=OTHER)
    index.catch_up()

    with pytest.raises(SpaceRequired):
        search_service.by_vector(database, index, [1, 0])
    assert names(search_service.by_vector(database, index, [1, 0], Options(space_key=OTHER.key))) == ["fan/other"]


def test_neighbours_are_of_the_models_own_space(database: Database, index: Follower):
    entries.put(database, "fan/m0", [1, 0], space=OTHER)
    entries.put(database, "fan/other", [1, 1], space=OTHER)
    index.catch_up()

    assert names(search_service.by_model(database, index, "fan/m0")) == ["fan/other"]
    assert "fan/other" not in names(search_service.by_model(database, index, "fan/m0", Options(space_key=SPACE.key)))


@pytest.mark.parametrize("vector", [[0, 0], [float("nan"), 0], [float("inf"), 0], [1e200, 0]], ids=str)
def test_a_vector_without_a_direction_is_refused(database: Database, index: Follower, vector: list[float]):
    with pytest.raises(InvalidVector):
        search_service.by_vector(database, index, vector)


def test_nothing_is_answered_before_the_index_is_loaded(database: Database, index: Follower):
    unread = Follower(database, interval=3600)
    with pytest.raises(IndexNotLoaded):
        search_service.by_model(database, unread, "fan/m0")
    with pytest.raises(IndexNotLoaded):
        search_service.by_vector(database, unread, [1, 0])


FAR = "far/away"


def describe(database: Database, repo_id: str, metadata: Metadata) -> None:
    with database.transaction() as session:
        feed.lock_feed(session)
        models.describe(session, models.get(session, repo_id).id, metadata)


def test_filters_hold_for_neighbours_of_a_model_and_of_a_vector(database: Database, index: Follower):
    describe(database, "fan/m2", Metadata("mit", ("code",), 100, 5, datetime(2026, 5, 1, tzinfo=UTC)))
    describe(database, "fan/m3", Metadata("mit", ("code", "peft"), 10, 50, datetime(2026, 6, 1, tzinfo=UTC)))
    index.catch_up()

    for filters, expected in (
        (Filters(licences=("mit",)), ["fan/m2", "fan/m3"]),
        (Filters(tags=("peft",)), ["fan/m3"]),
        (Filters(min_downloads=50), ["fan/m2"]),
        (Filters(updated_since=datetime(2026, 5, 15, tzinfo=UTC)), ["fan/m3"]),
        (Filters(owners=("fan",), bases=(entries.BASE,), kinds=("lora",), min_likes=5), ["fan/m2", "fan/m3"]),
        (Filters(owners=("nobody",)), []),
    ):
        options = Options(filters=filters)
        assert names(search_service.by_model(database, index, "fan/m0", options)) == expected
        assert names(search_service.by_vector(database, index, [1, 0], options)) == expected


def test_named_models_and_the_own_owners_are_left_out(database: Database, index: Follower):
    entries.put(database, FAR, [-1, 5])
    index.catch_up()
    options = Options(exclude=("fan/m1", "fan/m2", "no/body"))
    assert names(search_service.by_model(database, index, "fan/m0", options)) == ["fan/m3", "fan/m4", FAR]
    assert names(search_service.by_model(database, index, "fan/m0", Options(exclude_own_owner=True))) == [FAR]


def test_several_models_are_asked_about_at_once(database: Database, index: Follower, statements: list[str]):
    search_service.by_model(database, index, "fan/m0")
    entries.put_model(database, "fan/new")
    statements.clear()
    wanted = ["fan/m4", "no/body", "fan/still", "fan/new", "fan/m0"]
    answers = search_service.by_models(database, index, wanted, Options(Page(k=1)))

    assert [type(answer).__name__ for answer in answers] == [
        "Answer", "ModelNotFound", "NoShift", "NotIndexed", "Answer",
    ]  # fmt: skip
    assert (names(answers[0]), names(answers[4])) == (["fan/m3"], ["fan/m1"])
    # one of the three is for the unknown name: it may be one that a model had before
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT", "SELECT"]


def test_near_duplicates_are_named_behind_one_of_them(database: Database, index: Follower):
    for number in range(3):
        entries.put(database, f"copy/c{number}", [1, 1 + number / 1e5])
    index.catch_up()
    answer = search_service.by_vector(database, index, [1, 1], Options(Page(k=2, group_above=0.999)))
    first = answer.neighbours[0]
    together = {first.model.repo_id, *(twin.model.repo_id for twin in first.duplicates)}
    assert together == {"copy/c0", "copy/c1", "copy/c2", "fan/m2"}
    assert len(answer.neighbours) == 2


def test_where_no_noise_was_measured_confidence_cannot_be_told(database: Database, index: Follower):
    sure = search_service.by_model(database, index, "fan/m0").confidence
    assert (sure.norm, sure.noise_floor, sure.noise_similarity, sure.confident) == (4, None, None, None)


@pytest.fixture
def measured(database: Database) -> Follower:
    """Ten unrelated models of 64 dimensions with norm 10, and a pair that belongs together; the noise floor is 1."""
    random = np.random.default_rng(0)
    for number, vector in enumerate(np.linalg.qr(random.standard_normal((64, 64)))[0][:10]):
        entries.put(database, f"lone/m{number}", 10 * vector)
    entries.put(database, "pair/a", 10 * np.eye(64)[0] + np.eye(64)[1])
    entries.put(database, "pair/b", 10 * np.eye(64)[0] - np.eye(64)[1])
    entries.put(database, "pair/weak", 1.05 * np.eye(64)[0] / 1.0)
    with database.transaction() as session:
        table = BaseTable(np.zeros((5, 64), np.float32), 1.0)
        spaces.store_base_table(session, SPACE, SPACE.base_repo, SPACE.base_sha, table)
    follower = Follower(database, interval=3600)
    follower.catch_up()
    return follower


def test_neighbours_above_noise_and_chance_are_confident(database: Database, measured: Follower):
    answer = search_service.by_model(database, measured, "pair/a", Options(Page(k=2)))
    assert answer.confidence.confident is True
    assert answer.confidence.noise_floor == 1
    assert 0.3 < answer.confidence.noise_similarity < 0.5
    assert set(names(answer)) == {"pair/b", "pair/weak"}


def test_where_nothing_is_near_the_answer_is_nothing_and_not_five_random_models(database: Database, measured: Follower):
    answer = search_service.by_model(database, measured, "lone/m3")
    assert (answer.confidence.confident, answer.neighbours) == (False, [])
    all_the_same = search_service.by_model(database, measured, "lone/m3", Options(Page(k=5), unconfident=True))
    assert (all_the_same.confidence.confident, len(all_the_same.neighbours)) == (False, 5)


def test_who_barely_moved_has_no_confident_neighbour_however_near(database: Database, measured: Follower):
    answer = search_service.by_model(database, measured, "pair/weak")
    assert (answer.confidence.confident, answer.neighbours) == (False, [])


def test_a_vector_is_judged_by_its_norm(database: Database, measured: Follower):
    strong = search_service.by_vector(database, measured, (10 * np.eye(64)[0]).tolist())
    weak = search_service.by_vector(database, measured, np.eye(64)[0].tolist())
    assert (strong.confidence.confident, weak.confidence.confident) == (True, False)
