"""Searches in a fitted geometry, compared with a direct computation over all vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from catalog.database import Database
from catalog.geometry import repository as geometries
from catalog.geometry.repository import GeometryKey
from catalog.geometry.transforms import DEFAULT_KINDS, MIN_MODELS, GeometryChoice, fit_default
from catalog.index.follower import IndexFollower
from catalog.search import service as search_service
from catalog.search.reranking import PageOptions
from catalog.search.service import SearchOptions
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space
from catalog.spaces.repository import BaseMeasurement, store_base_measurement
from catalog.tasks import nearest as task_nearest
from tests.support import catalog as entries
from tests.support.catalog import SPACE

COUNT = MIN_MODELS + 6
DIMENSION = 8
RAW = SearchOptions(geometry=GeometryChoice.RAW)


@pytest.fixture
def vectors() -> np.ndarray:
    """Unit vectors with a common direction."""
    rows = np.random.default_rng(0).normal(size=(COUNT, DIMENSION)) + 1.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=DEFAULT_KINDS)
def space(request: pytest.FixtureRequest) -> Space:
    """A space of each feature that has a default geometry."""
    return replace(SPACE, feature=request.param)


@pytest.fixture
def index(database: Database, space: Space, vectors: np.ndarray) -> Iterator[IndexFollower]:
    for number, vector in enumerate(vectors):
        entries.put(database, f"a/m{number}", 5 * vector, space=space)
    follower = IndexFollower(database, interval=3600)
    follower.sync()
    yield follower
    follower.stop()


def fit(database: Database, space: Space, vectors: np.ndarray, models: int = COUNT) -> int:
    """Store the default geometry of the space and return its id."""
    key, geometry = GeometryKey(DEFAULT_KINDS[space.feature]), fit_default(vectors, space.feature)
    with database.transaction() as session:
        return geometries.create(session, 1, key, geometry, models)


def names(answer: search_service.SearchAnswer) -> list[str]:
    return [neighbor.model.repo_id for neighbor in answer.neighbors]


def expected(vectors: np.ndarray, space: Space, query: int) -> tuple[list[str], np.ndarray]:
    images = fit_default(vectors, space.feature).apply(vectors)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    cosines = images @ images[query]
    order = [number for number in np.argsort(-cosines) if number != query]
    return [f"a/m{number}" for number in order], cosines[order]


def test_search_uses_the_default_geometry(database: Database, space: Space, vectors: np.ndarray, index: IndexFollower):
    geometry_id = fit(database, space, vectors)
    index.sync()

    answer = search_service.by_model(database, index, "a/m3")

    order, cosines = expected(vectors, space, 3)
    assert names(answer) == order[:10]
    assert [neighbor.similarity for neighbor in answer.neighbors] == pytest.approx(cosines[:10], abs=1e-5)
    assert (answer.fitted.kind, answer.fitted.id, answer.exact) == (DEFAULT_KINDS[space.feature], geometry_id, True)


def test_raw_search_ignores_the_fit(database: Database, space: Space, vectors: np.ndarray, index: IndexFollower):
    before = search_service.by_model(database, index, "a/m3", RAW)
    fit(database, space, vectors)
    index.sync()
    after = search_service.by_model(database, index, "a/m3", RAW)
    assert names(after) == names(before)
    assert after.fitted is None


def test_search_is_raw_until_the_fit_has_enough_models(
    database: Database, space: Space, vectors: np.ndarray, index: IndexFollower
):
    assert search_service.by_model(database, index, "a/m3").fitted is None
    fit(database, space, vectors, models=MIN_MODELS - 1)
    index.sync()
    assert search_service.by_model(database, index, "a/m3").fitted is None
    fit(database, space, vectors, models=MIN_MODELS)
    index.sync()
    assert search_service.by_model(database, index, "a/m3").fitted is not None


def test_index_loaded_after_the_fit_has_the_geometry(database: Database, space: Space, vectors: np.ndarray):
    index = IndexFollower(database, interval=3600)
    for number, vector in enumerate(vectors):
        entries.put(database, f"a/m{number}", vector, space=space)
    fit(database, space, vectors)
    index.sync()
    assert search_service.by_model(database, index, "a/m3").fitted is not None
    index.stop()


def test_min_similarity_applies_to_cosines_in_the_geometry(
    database: Database, space: Space, vectors: np.ndarray, index: IndexFollower
):
    fit(database, space, vectors)
    index.sync()
    order, cosines = expected(vectors, space, 3)
    answer = search_service.by_model(database, index, "a/m3", SearchOptions(PageOptions(min_similarity=0.2)))
    assert names(answer) == order[: int((cosines >= 0.2).sum())][:10]


def test_confidence_is_judged_by_raw_cosines(
    database: Database, space: Space, vectors: np.ndarray, index: IndexFollower
):
    fit(database, space, vectors)
    index.sync()
    with database.transaction() as session:
        table = BaseMeasurement(np.zeros((1, DIMENSION), np.float32), noise_floor=0.01)
        store_base_measurement(session, space, space.base_repo, space.base_sha, table)
    confidences = {
        search_service.by_model(
            database, index, "a/m3", SearchOptions(geometry=choice, include_low_confidence=True)
        ).confidence
        for choice in GeometryChoice
    }
    assert len(confidences) == 1


def test_worker_ranks_models_for_a_task_like_a_search(
    database: Database, space: Space, vectors: np.ndarray, index: IndexFollower
):
    query = np.random.default_rng(1).normal(size=DIMENSION).astype(np.float32) + 1.5
    for models in (COUNT, 0):  # a geometry fitted to enough models, and one fitted to too few
        fit(database, space, vectors, models)
        index.sync()
        with database.transaction() as session:
            row = spaces.get(session, space.key)
            ranked = task_nearest.nearest_models(session, {space.feature: row}, {space.feature: query[None]}, 10)
        answer = search_service.by_vector(database, index, query.tolist(), SearchOptions(include_low_confidence=True))
        assert (answer.fitted is not None) == (models == COUNT)
        assert [model.repo_id for model, _ in ranked] == names(answer)
        assert [cosine for _, cosine in ranked] == pytest.approx(
            [neighbor.similarity for neighbor in answer.neighbors], abs=1e-5
        )
