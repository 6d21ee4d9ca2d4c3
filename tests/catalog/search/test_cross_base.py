"""Neighbours among models of two bases, against the same maths over all vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.clusters.parameters import Parameters
from catalog.clusters.runner import Grouper
from catalog.clusters.service import ask
from catalog.database import Database
from catalog.errors import GeometryNotFitted
from catalog.geometry.transforms import LEAST_OF_A_BASE, standardised
from catalog.index.filters import Filters
from catalog.index.follower import Follower
from catalog.search import service as search_service
from catalog.search.reranking import Page
from catalog.search.service import Options
from tests.support import catalog as entries
from tests.support.catalog import MEANING, SPACE

BASES = ("tiny/llama", "tiny/gpt2")
FEW = "tiny/rare"  # a base of fewer models than a geometry needs
TOPICS = ("law", "math", "code", "chat", "news")
DIMENSION = 24
MEANINGS = Options(space_key="meaning")


def vectors_of(base: int, each: int) -> np.ndarray:
    """Models (5 * each, d), topic by topic: what all of the base share is louder than what each has learned, and every
    base has coordinates of its own that are louder than others.
    """
    topics = np.random.default_rng(0).normal(size=(len(TOPICS), DIMENSION))
    own = np.random.default_rng(base + 1)
    shared, loud = 8 * own.normal(size=DIMENSION), np.exp(0.5 * own.normal(size=DIMENSION))
    noise = 0.2 * own.normal(size=(len(TOPICS) * each, DIMENSION))
    return (shared + loud * (np.repeat(topics, each, axis=0) + noise)).astype(np.float32)


def names_of(base: int, each: int) -> list[str]:
    return [f"{BASES[base].split('/')[1]}/{topic}-{number}" for topic in TOPICS for number in range(each)]


@pytest.fixture
def catalog(database: Database, tmp_path: Path) -> Iterator[Follower]:
    """Five models of one base, ten of another and one of a third in the space of meaning; geometries are fitted."""
    for base, each in enumerate((1, 2)):
        for name, vector in zip(names_of(base, each), vectors_of(base, each), strict=True):
            entries.put(database, name, vector, space=MEANING, base=BASES[base])
    entries.put(database, "rare/law", vectors_of(2, 1)[0], space=MEANING, base=FEW)
    fit(database, tmp_path)
    made = Follower(database, interval=3600)
    made.catch_up()
    yield made
    made.stop()


def fit(database: Database, folder: Path) -> None:
    _, space = ask(database, Parameters(), "meaning")
    Grouper(database, folder).run(space.id)


def names(answer: search_service.Answer) -> list[str]:
    return [each.model.repo_id for each in answer.neighbours]


def topics(found: Sequence[str]) -> list[str]:
    return [name.split("/")[1].split("-")[0] for name in found]


def test_the_nearest_of_another_base_learned_the_same(database: Database, catalog: Follower):
    of_other = Options(Page(k=2), "meaning", filters=Filters(bases=(BASES[1],)))
    for topic in TOPICS:
        assert topics(names(search_service.by_model(database, catalog, f"llama/{topic}-0", of_other))) == [topic, topic]


def test_as_they_are_vectors_tell_bases_apart_and_nothing_else(database: Database, catalog: Follower):
    raw = Options(Page(k=4), "meaning", "raw")
    answer = search_service.by_model(database, catalog, "llama/law-0", raw)
    assert {name.split("/")[0] for name in names(answer)} == {"llama"}
    assert answer.fitted is None


def test_each_model_is_compared_as_it_stands_among_those_of_its_base(database: Database, catalog: Follower):
    answer = search_service.by_model(database, catalog, "gpt2/math-1", MEANINGS)

    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (vectors_of(0, 1), vectors_of(1, 2))]
    placed = np.concatenate([standardised(unit).apply(unit) for unit in units])
    placed /= np.linalg.norm(placed, axis=1, keepdims=True)
    known = names_of(0, 1) + names_of(1, 2)
    cosines = placed @ placed[known.index("gpt2/math-1")]
    order = [place for place in np.argsort(-cosines) if known[place] != "gpt2/math-1"][:10]
    assert names(answer) == [known[place] for place in order]
    assert [each.similarity for each in answer.neighbours] == pytest.approx(cosines[order], abs=1e-5)
    assert (answer.fitted.kind, answer.fitted.models, answer.exact) == ("standardised", 10, True)


def test_near_duplicates_are_near_as_they_stand_among_those_of_their_bases(database: Database, catalog: Follower):
    answer = search_service.by_model(database, catalog, "llama/law-0", Options(Page(k=14, group_above=0.6), "meaning"))
    lines = [[each.model.repo_id for each in (line, *line.duplicates)] for line in answer.neighbours]
    assert sorted(map(topics, lines)) == sorted([topic] * (2 if topic == "law" else 3) for topic in TOPICS)


def test_a_varied_page_is_varied_in_what_was_learned(database: Database, catalog: Follower):
    answer = search_service.by_model(database, catalog, "llama/law-0", Options(Page(k=5, diversity=0.7), "meaning"))
    assert sorted(topics(names(answer))) == sorted(TOPICS)


def test_models_of_a_base_that_has_too_few_are_left_out_and_counted(database: Database, catalog: Follower):
    answer = search_service.by_model(
        database, catalog, "llama/law-0", Options(Page(k=100), "meaning", unconfident=True)
    )
    assert len(answer.neighbours) == 14
    assert answer.left_out == 1
    of_it = Options(space_key="meaning", filters=Filters(bases=(FEW,)))
    assert names(search_service.by_model(database, catalog, "llama/law-0", of_it)) == []


def test_a_model_of_a_base_that_has_too_few_is_compared_as_it_is(database: Database, catalog: Follower):
    answer = search_service.by_model(database, catalog, "rare/law", MEANINGS)
    assert (answer.fitted, len(answer.neighbours)) == (None, 10)
    with pytest.raises(GeometryNotFitted, match=FEW):
        search_service.by_model(database, catalog, "rare/law", Options(space_key="meaning", geometry="standardised"))


def test_a_base_whose_models_are_all_alike_has_no_geometry(database: Database, tmp_path: Path):
    for number in range(LEAST_OF_A_BASE):
        entries.put(database, f"a/m{number}", np.ones(DIMENSION), space=MEANING)
    fit(database, tmp_path)
    index = Follower(database, interval=3600)
    index.catch_up()
    answer = search_service.by_model(database, index, "a/m0", MEANINGS)
    index.stop()
    assert answer.fitted is None


def test_a_vector_of_no_known_base_is_compared_as_it_is(database: Database, catalog: Follower):
    answer = search_service.by_vector(database, catalog, vectors_of(0, 1)[0].tolist(), MEANINGS)
    assert answer.fitted is None
    assert names(answer)[0] == "llama/law-0"


def test_a_geometry_of_the_spaces_of_one_base_is_not_there(database: Database, catalog: Follower):
    with pytest.raises(GeometryNotFitted, match="softened"):
        search_service.by_model(database, catalog, "llama/law-0", Options(space_key="meaning", geometry="softened"))


def test_a_name_is_the_space_of_the_models_own_base(database: Database, catalog: Follower):
    """Two bases have a space of activations each, and both models are asked about by the same word."""
    for base in BASES:
        own = replace(SPACE, base_repo=base)
        for number in range(2):
            entries.put(database, f"{base.split('/')[1]}/law-{number}", [1, number], space=own, base=base)
    catalog.catch_up()
    for word in ("activations", "delta_activations"):
        for name in ("llama", "gpt2"):
            answer = search_service.by_model(database, catalog, f"{name}/law-0", Options(space_key=word))
            assert (names(answer), answer.space.base_repo) == ([f"{name}/law-1"], f"tiny/{name}")
