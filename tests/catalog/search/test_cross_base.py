"""Neighbors among models of two bases, compared with a direct computation over all vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.clusters.parameters import Parameters
from catalog.clusters.runner import ClusterRunner
from catalog.clusters.service import request_run
from catalog.database import Database
from catalog.geometry.transforms import MIN_MODELS_PER_BASE, GeometryChoice, standardized
from catalog.index.filters import Filters
from catalog.index.follower import IndexFollower
from catalog.search import service as search_service
from catalog.search.reranking import PageOptions
from catalog.search.service import SearchOptions
from tests.support import catalog as entries
from tests.support.catalog import MEANING, SPACE

BASES = ("tiny/llama", "tiny/gpt2")
SMALL_BASE = "tiny/rare"  # a base with fewer models than a geometry needs
TOPICS = ("law", "math", "code", "chat", "news")
DIMENSION = 24
MEANINGS = SearchOptions(space_key="meaning")


def vectors_of(base: int, per_topic: int) -> np.ndarray:
    """Vectors (5 * per_topic, d), topic by topic. What all models of the base share is greater than what each has
    learned, and every base scales the coordinates differently.
    """
    topics = np.random.default_rng(0).normal(size=(len(TOPICS), DIMENSION))
    random = np.random.default_rng(base + 1)
    shared, scale = 8 * random.normal(size=DIMENSION), np.exp(0.5 * random.normal(size=DIMENSION))
    noise = 0.2 * random.normal(size=(len(TOPICS) * per_topic, DIMENSION))
    return (shared + scale * (np.repeat(topics, per_topic, axis=0) + noise)).astype(np.float32)


def names_of(base: int, per_topic: int) -> list[str]:
    return [f"{BASES[base].split('/')[1]}/{topic}-{number}" for topic in TOPICS for number in range(per_topic)]


@pytest.fixture
def catalog(database: Database, tmp_path: Path) -> Iterator[IndexFollower]:
    """Five models of one base, ten of another and one of a third in the meaning space, with fitted geometries."""
    for base, per_topic in enumerate((1, 2)):
        for name, vector in zip(names_of(base, per_topic), vectors_of(base, per_topic), strict=True):
            entries.put(database, name, vector, space=MEANING, base=BASES[base])
    entries.put(database, "rare/law", vectors_of(2, 1)[0], space=MEANING, base=SMALL_BASE)
    fit(database, tmp_path)
    follower = IndexFollower(database, interval=3600)
    follower.sync()
    yield follower
    follower.stop()


def fit(database: Database, folder: Path) -> None:
    _, space = request_run(database, Parameters(), "meaning")
    ClusterRunner(database, folder).run(space.id)


def names(answer: search_service.SearchAnswer) -> list[str]:
    return [neighbor.model.repo_id for neighbor in answer.neighbors]


def topics(repo_ids: Sequence[str]) -> list[str]:
    return [repo_id.split("/")[1].split("-")[0] for repo_id in repo_ids]


def test_nearest_models_of_another_base_have_the_same_topic(database: Database, catalog: IndexFollower):
    other_base = SearchOptions(PageOptions(k=2), "meaning", filters=Filters(bases=(BASES[1],)))
    for topic in TOPICS:
        assert topics(names(search_service.by_model(database, catalog, f"llama/{topic}-0", other_base))) == [
            topic,
            topic,
        ]


def test_raw_vectors_only_separate_bases(database: Database, catalog: IndexFollower):
    raw = SearchOptions(PageOptions(k=4), "meaning", GeometryChoice.RAW)
    answer = search_service.by_model(database, catalog, "llama/law-0", raw)
    assert {name.split("/")[0] for name in names(answer)} == {"llama"}
    assert answer.fitted is None


def test_models_are_standardized_within_their_bases(database: Database, catalog: IndexFollower):
    answer = search_service.by_model(database, catalog, "gpt2/math-1", MEANINGS)

    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (vectors_of(0, 1), vectors_of(1, 2))]
    images = np.concatenate([standardized(unit).apply(unit) for unit in units])
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    repo_ids = names_of(0, 1) + names_of(1, 2)
    cosines = images @ images[repo_ids.index("gpt2/math-1")]
    order = [index for index in np.argsort(-cosines) if repo_ids[index] != "gpt2/math-1"][:10]
    assert names(answer) == [repo_ids[index] for index in order]
    assert [neighbor.similarity for neighbor in answer.neighbors] == pytest.approx(cosines[order], abs=1e-5)
    assert (answer.fitted.kind, answer.fitted.models, answer.exact) == ("standardized", 10, True)


def test_near_duplicates_are_grouped_across_bases(database: Database, catalog: IndexFollower):
    answer = search_service.by_model(
        database, catalog, "llama/law-0", SearchOptions(PageOptions(k=14, group_above=0.6), "meaning")
    )
    groups = [[model.model.repo_id for model in (first, *first.duplicates)] for first in answer.neighbors]
    assert sorted(map(topics, groups)) == sorted([topic] * (2 if topic == "law" else 3) for topic in TOPICS)


def test_diverse_page_has_every_topic(database: Database, catalog: IndexFollower):
    answer = search_service.by_model(
        database, catalog, "llama/law-0", SearchOptions(PageOptions(k=5, diversity=0.7), "meaning")
    )
    assert sorted(topics(names(answer))) == sorted(TOPICS)


def test_models_of_a_small_base_are_left_out_and_counted(database: Database, catalog: IndexFollower):
    answer = search_service.by_model(
        database, catalog, "llama/law-0", SearchOptions(PageOptions(k=100), "meaning", include_low_confidence=True)
    )
    assert len(answer.neighbors) == 14
    assert answer.not_compared == 1
    small_base = SearchOptions(space_key="meaning", filters=Filters(bases=(SMALL_BASE,)))
    assert names(search_service.by_model(database, catalog, "llama/law-0", small_base)) == []


def test_model_of_a_small_base_is_compared_raw(database: Database, catalog: IndexFollower):
    answer = search_service.by_model(database, catalog, "rare/law", MEANINGS)
    assert (answer.fitted, len(answer.neighbors)) == (None, 10)


def test_base_with_identical_models_has_no_geometry(database: Database, tmp_path: Path):
    for number in range(MIN_MODELS_PER_BASE):
        entries.put(database, f"a/m{number}", np.ones(DIMENSION), space=MEANING)
    fit(database, tmp_path)
    index = IndexFollower(database, interval=3600)
    index.sync()
    answer = search_service.by_model(database, index, "a/m0", MEANINGS)
    index.stop()
    assert answer.fitted is None


def test_vector_without_a_base_is_compared_raw(database: Database, catalog: IndexFollower):
    answer = search_service.by_vector(database, catalog, vectors_of(0, 1)[0].tolist(), MEANINGS)
    assert answer.fitted is None
    assert names(answer)[0] == "llama/law-0"


def test_feature_name_selects_the_space_of_the_models_base(database: Database, catalog: IndexFollower):
    """Two bases have an activations space each, and both are named by the same feature."""
    for base in BASES:
        space = replace(SPACE, base_repo=base)
        for number in range(2):
            entries.put(database, f"{base.split('/')[1]}/law-{number}", [1, number], space=space, base=base)
    catalog.sync()
    for feature in ("activations", "delta_activations"):
        for name in ("llama", "gpt2"):
            answer = search_service.by_model(database, catalog, f"{name}/law-0", SearchOptions(space_key=feature))
            assert (names(answer), answer.space.base_repo) == ([f"{name}/law-1"], f"tiny/{name}")
