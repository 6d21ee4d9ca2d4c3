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
from catalog.index.follower import IndexFollower
from catalog.models.repository import models
from catalog.models.repository.models import Metadata
from catalog.search import service as search_service
from catalog.search.reranking import PageOptions
from catalog.search.service import SearchOptions
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseMeasurement
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.catalog import SPACE

OTHER = dataclasses.replace(SPACE, base_repo="tiny/other")


@pytest.fixture
def index(database: Database) -> IndexFollower:
    """An index of five models in a fan and one that is `no_shift`."""
    for number in range(5):
        entries.put(database, f"fan/m{number}", [4 - number, number])
    entries.put(database, "fan/still", [1e-9, 0], no_shift=True)
    index = IndexFollower(database, interval=3600)
    index.sync()
    return index


def page(**options: float) -> SearchOptions:
    return SearchOptions(PageOptions(**options))  # type: ignore[arg-type]


def names(answer: search_service.SearchAnswer) -> list[str]:
    return [neighbor.model.repo_id for neighbor in answer.neighbors]


def test_search_by_model_returns_the_nearest_others_first(database: Database, index: IndexFollower):
    answer = search_service.by_model(database, index, "fan/m0")

    assert names(answer) == ["fan/m1", "fan/m2", "fan/m3", "fan/m4"]
    similarities = [neighbor.similarity for neighbor in answer.neighbors]
    assert similarities == pytest.approx([3 / 10**0.5, 0.5**0.5, 1 / 10**0.5, 0], abs=1e-6)


def test_answer_has_its_space_and_covered_seq(database: Database, index: IndexFollower):
    answer = search_service.by_model(database, index, "fan/m0")
    assert (answer.space.key, answer.exact) == (SPACE.key, True)
    assert answer.covered_seq == index.index(answer.space.id, 2).covered_seq
    assert answer.neighbors[0].model.revision.base_repo == entries.BASE


def test_search_by_model_takes_two_selects(database: Database, index: IndexFollower, statements: list[str]):
    search_service.by_model(database, index, "fan/m0")  # loads the space
    statements.clear()
    answer = search_service.by_model(database, index, "fan/m0")

    assert [neighbor.model.revision.sha for neighbor in answer.neighbors]  # loaded with the models
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT"]


def test_search_by_vector_takes_three_selects(database: Database, index: IndexFollower, statements: list[str]):
    search_service.by_model(database, index, "fan/m0")
    statements.clear()
    assert search_service.by_vector(database, index, [1, 0], SearchOptions(space_key=SPACE.key)).neighbors
    assert [statement.split()[0] for statement in statements] == ["SELECT"] * 3


def test_k_and_min_similarity_limit_the_answer(database: Database, index: IndexFollower):
    assert names(search_service.by_model(database, index, "fan/m0", page(k=2))) == [
        "fan/m1",
        "fan/m2",
    ]
    assert names(search_service.by_model(database, index, "fan/m0", page(min_similarity=0.9))) == ["fan/m1"]
    assert len(search_service.by_model(database, index, "fan/m0", page(k=search_service.MAX_K)).neighbors) == 4


def test_search_by_vector_uses_the_only_space_of_its_dimension(database: Database, index: IndexFollower):
    assert names(search_service.by_vector(database, index, [0, 9], page(k=2))) == [
        "fan/m4",
        "fan/m3",
    ]


def test_no_shift_model_is_never_a_neighbor(database: Database, index: IndexFollower):
    assert "fan/still" not in names(search_service.by_vector(database, index, [1, 0], page(k=100)))


def test_search_by_no_shift_model_raises_no_shift(database: Database, index: IndexFollower):
    with pytest.raises(NoShift):
        search_service.by_model(database, index, "fan/still")


def test_search_by_unknown_or_unindexed_model_raises(database: Database, index: IndexFollower):
    entries.put_model(database, "fan/new")
    with pytest.raises(ModelNotFound):
        search_service.by_model(database, index, "fan/nobody")
    with pytest.raises(NotIndexed):
        search_service.by_model(database, index, "fan/new")


def test_unknown_space_raises_space_not_found(database: Database, index: IndexFollower):
    options = SearchOptions(space_key="0" * 64)
    with pytest.raises(SpaceNotFound):
        search_service.by_model(database, index, "fan/m0", options)
    with pytest.raises(SpaceNotFound):
        search_service.by_vector(database, index, [1, 0], options)


def test_vector_of_an_unknown_dimension_raises_space_mismatch(database: Database, index: IndexFollower):
    with pytest.raises(SpaceMismatch):
        search_service.by_vector(database, index, [1, 0, 0])


def test_vector_in_a_space_of_another_dimension_raises_space_mismatch(database: Database, index: IndexFollower):
    with pytest.raises(SpaceMismatch):
        search_service.by_vector(database, index, [1, 0, 0], SearchOptions(space_key=SPACE.key))


def test_vector_that_fits_two_spaces_raises_space_required(database: Database, index: IndexFollower):
    entries.put(database, "fan/other", [1, 0], space=OTHER)
    index.sync()

    with pytest.raises(SpaceRequired):
        search_service.by_vector(database, index, [1, 0])
    assert names(search_service.by_vector(database, index, [1, 0], SearchOptions(space_key=OTHER.key))) == ["fan/other"]


def test_search_by_model_uses_the_newest_space_of_the_model(database: Database, index: IndexFollower):
    entries.put(database, "fan/m0", [1, 0], space=OTHER)
    entries.put(database, "fan/other", [1, 1], space=OTHER)
    index.sync()

    assert names(search_service.by_model(database, index, "fan/m0")) == ["fan/other"]
    assert "fan/other" not in names(
        search_service.by_model(database, index, "fan/m0", SearchOptions(space_key=SPACE.key))
    )


@pytest.mark.parametrize("vector", [[0, 0], [float("nan"), 0], [float("inf"), 0], [1e200, 0]], ids=str)
def test_vector_without_direction_raises_invalid_vector(database: Database, index: IndexFollower, vector: list[float]):
    with pytest.raises(InvalidVector):
        search_service.by_vector(database, index, vector)


def test_search_before_the_index_is_loaded_raises_index_not_loaded(database: Database, index: IndexFollower):
    unread = IndexFollower(database, interval=3600)
    with pytest.raises(IndexNotLoaded):
        search_service.by_model(database, unread, "fan/m0")
    with pytest.raises(IndexNotLoaded):
        search_service.by_vector(database, unread, [1, 0])


FAR = "far/away"


def describe(database: Database, repo_id: str, metadata: Metadata) -> None:
    with database.transaction() as session:
        feed.lock_feed(session)
        models.update_metadata(session, models.get(session, repo_id).id, metadata)


def test_filters_apply_to_searches_by_model_and_by_vector(database: Database, index: IndexFollower):
    describe(database, "fan/m2", Metadata("mit", ("code",), 100, 5, datetime(2026, 5, 1, tzinfo=UTC)))
    describe(database, "fan/m3", Metadata("mit", ("code", "peft"), 10, 50, datetime(2026, 6, 1, tzinfo=UTC)))
    index.sync()

    for filters, expected in (
        (Filters(licenses=("mit",)), ["fan/m2", "fan/m3"]),
        (Filters(tags=("peft",)), ["fan/m3"]),
        (Filters(min_downloads=50), ["fan/m2"]),
        (Filters(updated_since=datetime(2026, 5, 15, tzinfo=UTC)), ["fan/m3"]),
        (Filters(owners=("fan",), bases=(entries.BASE,), kinds=("lora",), min_likes=5), ["fan/m2", "fan/m3"]),
        (Filters(owners=("nobody",)), []),
    ):
        options = SearchOptions(filters=filters)
        assert names(search_service.by_model(database, index, "fan/m0", options)) == expected
        assert names(search_service.by_vector(database, index, [1, 0], options)) == expected


def test_exclude_and_exclude_own_owner_leave_models_out(database: Database, index: IndexFollower):
    entries.put(database, FAR, [-1, 5])
    index.sync()
    options = SearchOptions(exclude=("fan/m1", "fan/m2", "no/body"))
    assert names(search_service.by_model(database, index, "fan/m0", options)) == ["fan/m3", "fan/m4", FAR]
    assert names(search_service.by_model(database, index, "fan/m0", SearchOptions(exclude_own_owner=True))) == [FAR]


def test_batch_search_answers_or_fails_for_each_model(database: Database, index: IndexFollower, statements: list[str]):
    search_service.by_model(database, index, "fan/m0")
    entries.put_model(database, "fan/new")
    statements.clear()
    repo_ids = ["fan/m4", "no/body", "fan/still", "fan/new", "fan/m0"]
    answers = search_service.by_models(database, index, repo_ids, page(k=1))

    assert [type(answer).__name__ for answer in answers] == [
        "SearchAnswer", "ModelNotFound", "NoShift", "NotIndexed", "SearchAnswer",
    ]  # fmt: skip
    assert (names(answers[0]), names(answers[4])) == (["fan/m3"], ["fan/m1"])
    # the third looks the unknown name up among the former names of models
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT", "SELECT"]


def test_near_duplicates_are_grouped(database: Database, index: IndexFollower):
    for number in range(3):
        entries.put(database, f"copy/c{number}", [1, 1 + number / 1e5])
    index.sync()
    answer = search_service.by_vector(database, index, [1, 1], page(k=2, group_above=0.999))
    first = answer.neighbors[0]
    group = {first.model.repo_id, *(duplicate.model.repo_id for duplicate in first.duplicates)}
    assert group == {"copy/c0", "copy/c1", "copy/c2", "fan/m2"}
    assert len(answer.neighbors) == 2


def test_confidence_is_unknown_without_a_noise_floor(database: Database, index: IndexFollower):
    confidence = search_service.by_model(database, index, "fan/m0").confidence
    assert (confidence.noise_floor, confidence.noise_similarity, confidence.confident) == (None, None, None)


@pytest.fixture
def measured(database: Database) -> IndexFollower:
    """Ten unrelated models of 64 dimensions with norm 10, and three that are similar; the noise floor is 1."""
    random = np.random.default_rng(0)
    for number, vector in enumerate(np.linalg.qr(random.standard_normal((64, 64)))[0][:10]):
        entries.put(database, f"lone/m{number}", 10 * vector)
    entries.put(database, "pair/a", 10 * np.eye(64)[0] + np.eye(64)[1])
    entries.put(database, "pair/b", 10 * np.eye(64)[0] - np.eye(64)[1])
    entries.put(database, "pair/weak", 1.05 * np.eye(64)[0] / 1.0)
    with database.transaction() as session:
        table = BaseMeasurement(np.zeros((5, 64), np.float32), 1.0)
        spaces.store_base_measurement(session, SPACE, SPACE.base_repo, SPACE.base_sha, table)
    follower = IndexFollower(database, interval=3600)
    follower.sync()
    return follower


def test_neighbors_above_noise_and_chance_are_confident(database: Database, measured: IndexFollower):
    answer = search_service.by_model(database, measured, "pair/a", page(k=2))
    assert answer.confidence.confident is True
    assert answer.confidence.noise_floor == 1
    assert 0.3 < answer.confidence.noise_similarity < 0.5
    assert set(names(answer)) == {"pair/b", "pair/weak"}


@pytest.mark.parametrize(("unrelated", "confident"), [(0.85, True), (0.9, False)])
def test_measured_nearness_of_unrelated_models_replaces_the_formula(
    database: Database, measured: IndexFollower, unrelated: float, confident: bool
):
    with database.transaction() as session:
        spaces.set_unrelated_similarity(session, 1, unrelated)
    confidence = search_service.by_model(database, measured, "pair/a", page(k=2)).confidence
    assert confidence.unrelated_similarity == unrelated
    assert confidence.noise_similarity == pytest.approx(unrelated + 0.1, abs=0.001)
    assert confidence.chance_similarity < 0.3
    assert confidence.confident is confident


def test_low_confidence_neighbors_are_returned_only_on_request(database: Database, measured: IndexFollower):
    answer = search_service.by_model(database, measured, "lone/m3")
    assert (answer.confidence.confident, answer.neighbors) == (False, [])
    low_confidence = search_service.by_model(
        database, measured, "lone/m3", SearchOptions(PageOptions(k=5), include_low_confidence=True)
    )
    assert (low_confidence.confidence.confident, len(low_confidence.neighbors)) == (False, 5)


def test_model_with_a_small_norm_has_no_confident_neighbor(database: Database, measured: IndexFollower):
    answer = search_service.by_model(database, measured, "pair/weak")
    assert (answer.confidence.confident, answer.neighbors) == (False, [])


def test_confidence_of_a_vector_depends_on_its_norm(database: Database, measured: IndexFollower):
    strong = search_service.by_vector(database, measured, (10 * np.eye(64)[0]).tolist())
    weak = search_service.by_vector(database, measured, np.eye(64)[0].tolist())
    assert (strong.confidence.confident, weak.confidence.confident) == (True, False)
