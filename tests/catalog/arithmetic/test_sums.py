from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from catalog.arithmetic import service as arithmetic_service
from catalog.arithmetic import sums
from catalog.database import Database
from catalog.errors import (
    AmbiguousTerm,
    CatalogError,
    InvalidExpression,
    NoShift,
    NothingLeft,
    NotIndexed,
    SpaceMismatch,
    SpaceNotFound,
    TermNotFound,
)
from catalog.models.repository import names
from catalog.models.repository.models import get
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseTable
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support import clusters
from tests.support.catalog import SPACE

LAYERS = dataclasses.replace(SPACE, feature="delta_layers")
LOGITS = dataclasses.replace(SPACE, feature="delta_logits")
ELSEWHERE = dataclasses.replace(SPACE, base_repo="other/base")


def compute(database: Database, text: str, **how) -> sums.Sum:
    with database.transaction() as session:
        return sums.compute(session, text, **how)


def save(database: Database, name: str, vector: Sequence[float], space: str | None = SPACE.key) -> None:
    arithmetic_service.save_vector(database, name, list(vector), space_key=space, note=None)


@pytest.fixture
def three(database: Database) -> None:
    entries.put(database, "owner/law", [3, 0])
    entries.put(database, "owner/math", [0, 4])
    entries.put(database, "owner/still", [1e-9, 0], no_shift=True)
    entries.put_model(database, "owner/waits")


@pytest.mark.usefixtures("three")
def test_raw_terms_are_added_as_they_are(database: Database):
    found = compute(database, "owner/law + 0.5*owner/math")
    assert found.vector.tolist() == [3, 2]
    assert found.norm == pytest.approx(13**0.5)
    assert [(each.weight, each.norm, each.meaning.full) for each in found.terms] == [
        (1, 3, "owner/law"),
        (0.5, 4, "owner/math"),
    ]


@pytest.mark.usefixtures("three")
def test_unit_terms_have_length_one(database: Database):
    found = compute(database, "owner/law - 2*owner/math", unit_terms=True)
    assert found.vector == pytest.approx(np.array([1, -2]))
    assert [each.norm for each in found.terms] == pytest.approx([1, 1])


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    "text", ["owner/law - owner/law", "0*owner/law", "0.1*owner/law + 0.2*owner/law - 0.3*owner/law"]
)
def test_a_sum_of_which_nothing_is_left_is_refused(database: Database, text: str):
    with pytest.raises(NothingLeft):
        compute(database, text)


@pytest.mark.usefixtures("three")
def test_terms_that_cancel_but_for_rounding_are_nothing(database: Database):
    save(database, "nearly", [3, 1e-7])
    with pytest.raises(NothingLeft):
        compute(database, "owner/law - nearly")


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("text", "error", "place", "told"),
    [
        ("owner/law + owner/lax", TermNotFound, (12, 9), "Near: owner/law"),
        ("owner/law + ownr/math", TermNotFound, (12, 9), "Near: owner/math"),
        ("owner/law + math", TermNotFound, (12, 4), "Near: owner/math"),
        ("nearl - owner/law", TermNotFound, (0, 5), "Near: nearly"),
        ("vector:nearl", TermNotFound, (0, 12), "Near: vector:nearly"),
        ("nothing-alike", TermNotFound, (0, 13), "A minus between two names needs a space"),
        ("model:'a b'", TermNotFound, (0, 11), "is no model here"),
        ("cluster:7", TermNotFound, (0, 9), "is no cluster here"),
        ("cluster:" + "9" * 30, TermNotFound, (0, 38), "is no cluster here"),
        ("owner/law + topic:12", InvalidExpression, (12, 8), "no kind of term 'topic'"),
        ("owner/law + task:12", TermNotFound, (12, 7), "is no task here"),
        ("owner/law - owner/still", NoShift, (12, 11), "owner/still"),
        ("owner/law + 2*owner/waits", NotIndexed, (14, 11), "pending"),
        ("owner/law + elsewhere", SpaceMismatch, (12, 9), "elsewhere"),
    ],
)
def test_a_name_that_cannot_be_added_is_pointed_at(
    database: Database, text: str, error: type[CatalogError], place: tuple[int, int], told: str
):
    entries.put(database, "other/law", [1, 0], space=ELSEWHERE)
    save(database, "nearly", [3, 1])
    save(database, "elsewhere", [3, 1], ELSEWHERE.key)
    with pytest.raises(error) as caught:
        compute(database, text)
    assert caught.value.place == place
    assert told in caught.value.message


def test_a_model_is_found_by_a_name_that_it_had(database: Database):
    entries.put(database, "old/name", [1, 2])
    with database.transaction() as session:
        feed.lock_feed(session)
        names.rename(session, get(session, "old/name"), "new/name")
    [term] = compute(database, "old/name").terms
    assert term.meaning.full == "new/name"


def test_a_sum_is_of_the_best_space_that_has_all_terms(database: Database):
    entries.put(database, "owner/both", [1, 0])
    entries.put(database, "owner/both", [1, 0, 0], space=LAYERS)
    entries.put(database, "owner/one", [0, 1])

    assert compute(database, "owner/both").space.key == LAYERS.key
    assert compute(database, "owner/both + owner/one").space.key == SPACE.key
    assert compute(database, "owner/both", space_key=SPACE.key).space.key == SPACE.key


def test_other_features_are_used_where_their_space_is_named(database: Database):
    entries.put(database, "owner/law", [1, 0], space=LOGITS)
    with pytest.raises(SpaceMismatch):
        compute(database, "owner/law")
    assert compute(database, "owner/law", space_key=LOGITS.key).space.key == LOGITS.key


@pytest.mark.usefixtures("three")
def test_a_space_that_is_named_has_to_be_there_and_have_all_terms(database: Database):
    entries.put(database, "other/law", [1, 0], space=ELSEWHERE)
    with pytest.raises(SpaceMismatch) as caught:
        compute(database, "other/law + owner/law", space_key=ELSEWHERE.key)
    assert caught.value.place == (12, 9)
    with pytest.raises(SpaceNotFound):
        compute(database, "owner/law", space_key="0" * 64)


def test_the_newest_revision_is_what_a_model_stands_for(database: Database):
    entries.put(database, "owner/law", [1, 0], commit="one")
    entries.put(database, "owner/law", [0, 2], commit="two")
    assert compute(database, "owner/law").vector.tolist() == [0, 2]


def test_a_cluster_is_as_long_as_its_members_are_on_average(database: Database, tmp_path: Path):
    clusters.fill(database)
    clusters.cluster(database, tmp_path)
    found_in = clusters.filters(database)
    name = found_in["owner/tiny-law-0"]
    members = [model for model, cluster in found_in.items() if cluster == name]
    mean = compute(database, f"({' + '.join(members)})/{len(members)}")

    found = compute(database, f"cluster:{name}")

    assert found.norm == pytest.approx(np.mean([compute(database, each).norm for each in members]))
    assert found.vector @ mean.vector / (found.norm * mean.norm) == pytest.approx(1, abs=1e-3)
    title = found.terms[0].meaning.title
    assert compute(database, f'"{title}"').vector.tolist() == found.vector.tolist()
    assert compute(database, f'cluster:"{title}"').terms[0].meaning.full == f"cluster:{name}"


def test_the_noise_of_a_cluster_is_that_of_unit_vectors_at_its_length(database: Database, tmp_path: Path):
    clusters.fill(database)
    clusters.cluster(database, tmp_path)
    put_floor(database, 0.1)
    number = clusters.filters(database)["owner/tiny-law-0"]
    norms = np.array([np.linalg.norm(clusters.vector(0, each)) for each in range(4)])
    units = np.stack([clusters.vector(0, each) for each in range(4)]) / norms[:, None]

    found = compute(database, f"cluster:{number}").noise_floor

    assert found == pytest.approx(
        0.1 * norms.mean() * (1 / norms).mean() / np.linalg.norm(units.mean(axis=0)), rel=1e-4
    )


def test_a_name_of_two_things_is_refused_with_their_full_forms(database: Database, tmp_path: Path):
    clusters.fill(database)
    clusters.cluster(database, tmp_path)
    number = clusters.filters(database)["owner/tiny-law-0"]
    title = compute(database, f"cluster:{number}").terms[0].meaning.title
    save(database, title, [1.0] * clusters.DIMENSION)

    with pytest.raises(AmbiguousTerm, match=rf"vector:{title}, cluster:{number}") as caught:
        compute(database, f"owner/tiny-law-0 + {title}")

    assert caught.value.place == (19, len(title))
    assert compute(database, f"vector:{title}").terms[0].meaning.kind == "vector"


def test_a_name_that_means_one_thing_in_the_space_that_is_named_is_that(database: Database, tmp_path: Path):
    clusters.fill(database)
    clusters.cluster(database, tmp_path)
    title = compute(database, f"cluster:{clusters.filters(database)['owner/tiny-law-0']}").terms[0].meaning.title
    entries.put(database, "owner/one", [1, 0], space=LAYERS)
    save(database, title, [1, 0], LAYERS.key)

    assert compute(database, title, space_key=LAYERS.key).terms[0].meaning.kind == "vector"
    assert compute(database, title, space_key=SPACE.key).terms[0].meaning.kind == "cluster"


def put_floor(database: Database, floor: float) -> None:
    with database.transaction() as session:
        spaces.store_base_table(session, SPACE, entries.BASE, "b" * 40, BaseTable(np.zeros((1, 2), np.float32), floor))


@pytest.mark.usefixtures("three")
def test_the_noise_of_a_sum_is_at_most_the_sum_of_its_terms_noise(database: Database):
    assert compute(database, "owner/law").noise_floor is None
    put_floor(database, 0.1)
    save(database, "stored", [1, 1])

    assert compute(database, "owner/law").noise_floor == pytest.approx(0.1)
    assert compute(database, "owner/law - 0.5*owner/math + 2*stored").noise_floor == pytest.approx(0.35)
    assert compute(database, "owner/law - 2*owner/math", unit_terms=True).noise_floor == pytest.approx(
        0.1 / 3 + 0.2 / 4
    )
