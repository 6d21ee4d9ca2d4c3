from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from catalog.arithmetic import service as arithmetic_service
from catalog.arithmetic import sums
from catalog.clusters.repository import clusters as cluster_rows
from catalog.database import Database
from catalog.errors import (
    AmbiguousTerm,
    CatalogError,
    InvalidExpression,
    NoShift,
    NotIndexed,
    SpaceMismatch,
    SpaceNotFound,
    TermNotFound,
    ZeroVector,
)
from catalog.models.repository import names
from catalog.models.repository.models import get
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseMeasurement
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
    arithmetic_service.store_vector(database, name, list(vector), space_key=space, note=None)


@pytest.fixture
def models(database: Database) -> None:
    entries.put(database, "owner/law", [3, 0])
    entries.put(database, "owner/math", [0, 4])
    entries.put(database, "owner/still", [1e-9, 0], no_shift=True)
    entries.put_model(database, "owner/waits")


@pytest.mark.usefixtures("models")
def test_raw_terms_are_added_unscaled(database: Database):
    total = compute(database, "owner/law + 0.5*owner/math")
    assert total.vector.tolist() == [3, 2]
    assert total.norm == pytest.approx(13**0.5)
    assert [(term.weight, term.norm, term.resolved.canonical) for term in total.terms] == [
        (1, 3, "owner/law"),
        (0.5, 4, "owner/math"),
    ]


@pytest.mark.usefixtures("models")
def test_unit_terms_have_length_one(database: Database):
    total = compute(database, "owner/law - 2*owner/math", unit_terms=True)
    assert total.vector == pytest.approx(np.array([1, -2]))
    assert [term.norm for term in total.terms] == pytest.approx([1, 1])


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    "text", ["owner/law - owner/law", "0*owner/law", "0.1*owner/law + 0.2*owner/law - 0.3*owner/law"]
)
def test_sum_that_cancels_out_raises_zero_vector(database: Database, text: str):
    with pytest.raises(ZeroVector):
        compute(database, text)


@pytest.mark.usefixtures("models")
def test_sum_that_cancels_up_to_rounding_raises_zero_vector(database: Database):
    save(database, "nearly", [3, 1e-7])
    with pytest.raises(ZeroVector):
        compute(database, "owner/law - nearly")


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("text", "error", "span", "message"),
    [
        ("owner/law + owner/lax", TermNotFound, (12, 9), "Similar names: owner/law"),
        ("owner/law + ownr/math", TermNotFound, (12, 9), "Similar names: owner/math"),
        ("owner/law + math", TermNotFound, (12, 4), "Similar names: owner/math"),
        ("nearl - owner/law", TermNotFound, (0, 5), "Similar names: nearly"),
        ("vector:nearl", TermNotFound, (0, 12), "Similar names: vector:nearly"),
        ("nothing-alike", TermNotFound, (0, 13), "A minus between two names needs a space"),
        ("model:'a b'", TermNotFound, (0, 11), "no model named 'a b'"),
        ("cluster:7", TermNotFound, (0, 9), "no cluster named '7'"),
        ("cluster:" + "9" * 30, TermNotFound, (0, 38), "no cluster named"),
        ("owner/law + topic:12", InvalidExpression, (12, 8), "kind of term 'topic'"),
        ("owner/law + task:12", TermNotFound, (12, 7), "no task named '12'"),
        ("owner/law - owner/still", NoShift, (12, 11), "owner/still"),
        ("owner/law + 2*owner/waits", NotIndexed, (14, 11), "pending"),
        ("owner/law + elsewhere", SpaceMismatch, (12, 9), "elsewhere"),
    ],
)
def test_unusable_name_raises_with_its_span(
    database: Database, text: str, error: type[CatalogError], span: tuple[int, int], message: str
):
    entries.put(database, "other/law", [1, 0], space=ELSEWHERE)
    save(database, "nearly", [3, 1])
    save(database, "elsewhere", [3, 1], ELSEWHERE.key)
    with pytest.raises(error) as raised:
        compute(database, text)
    assert raised.value.span == span
    assert message in raised.value.message


def test_model_is_found_by_its_former_name(database: Database):
    entries.put(database, "old/name", [1, 2])
    with database.transaction() as session:
        feed.lock_feed(session)
        names.rename(session, get(session, "old/name"), "new/name")
    [term] = compute(database, "old/name").terms
    assert term.resolved.canonical == "new/name"


def test_sum_uses_the_preferred_space_that_has_all_terms(database: Database):
    entries.put(database, "owner/both", [1, 0])
    entries.put(database, "owner/both", [1, 0, 0], space=LAYERS)
    entries.put(database, "owner/one", [0, 1])

    assert compute(database, "owner/both").space.key == LAYERS.key
    assert compute(database, "owner/both + owner/one").space.key == SPACE.key
    assert compute(database, "owner/both", space_key=SPACE.key).space.key == SPACE.key


def test_other_features_require_the_space_to_be_named(database: Database):
    entries.put(database, "owner/law", [1, 0], space=LOGITS)
    with pytest.raises(SpaceMismatch):
        compute(database, "owner/law")
    assert compute(database, "owner/law", space_key=LOGITS.key).space.key == LOGITS.key


@pytest.mark.usefixtures("models")
def test_named_space_must_exist_and_have_all_terms(database: Database):
    entries.put(database, "other/law", [1, 0], space=ELSEWHERE)
    with pytest.raises(SpaceMismatch) as raised:
        compute(database, "other/law + owner/law", space_key=ELSEWHERE.key)
    assert raised.value.span == (12, 9)
    with pytest.raises(SpaceNotFound):
        compute(database, "owner/law", space_key="0" * 64)


def test_model_term_is_its_newest_revision(database: Database):
    entries.put(database, "owner/law", [1, 0], commit="one")
    entries.put(database, "owner/law", [0, 2], commit="two")
    assert compute(database, "owner/law").vector.tolist() == [0, 2]


def test_cluster_term_has_the_mean_norm_of_its_members(database: Database, tmp_path: Path):
    clusters.fill(database)
    clusters.cluster(database, tmp_path)
    cluster_of = clusters.cluster_filters(database)
    name = cluster_of["owner/tiny-law-0"]
    members = [model for model, cluster in cluster_of.items() if cluster == name]
    mean = compute(database, f"({' + '.join(members)})/{len(members)}")

    centroid = compute(database, f"cluster:{name}")

    assert centroid.norm == pytest.approx(np.mean([compute(database, member).norm for member in members]))
    assert centroid.vector @ mean.vector / (centroid.norm * mean.norm) == pytest.approx(1, abs=1e-3)
    title = centroid.terms[0].resolved.title
    assert compute(database, f'"{title}"').vector.tolist() == centroid.vector.tolist()
    assert compute(database, f'cluster:"{title}"').terms[0].resolved.canonical == f"cluster:{name}"


def test_norm_of_a_large_cluster_is_averaged_over_some_of_its_members(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clusters.fill(database)
    clusters.cluster(database, tmp_path)
    cluster_of = clusters.cluster_filters(database)
    name = cluster_of["owner/tiny-law-0"]
    monkeypatch.setattr(cluster_rows, "MAX_AVERAGED", 2)
    members = [model for model, cluster in cluster_of.items() if cluster == name][:2]
    assert compute(database, f"cluster:{name}").norm == pytest.approx(
        np.mean([compute(database, member).norm for member in members])
    )


def test_noise_floor_of_a_cluster_is_that_of_unit_vectors_at_its_norm(database: Database, tmp_path: Path):
    clusters.fill(database)
    clusters.cluster(database, tmp_path)
    put_noise_floor(database, 0.1)
    number = clusters.cluster_filters(database)["owner/tiny-law-0"]
    norms = np.array([np.linalg.norm(clusters.vector(0, member)) for member in range(4)])
    units = np.stack([clusters.vector(0, member) for member in range(4)]) / norms[:, None]

    noise_floor = compute(database, f"cluster:{number}").noise_floor

    assert noise_floor == pytest.approx(
        0.1 * norms.mean() * (1 / norms).mean() / np.linalg.norm(units.mean(axis=0)), rel=1e-4
    )


def test_ambiguous_name_raises_with_the_canonical_forms(database: Database, tmp_path: Path):
    clusters.fill(database)
    clusters.cluster(database, tmp_path)
    number = clusters.cluster_filters(database)["owner/tiny-law-0"]
    title = compute(database, f"cluster:{number}").terms[0].resolved.title
    save(database, title, [1.0] * clusters.DIMENSION)

    with pytest.raises(AmbiguousTerm, match=rf"vector:{title}, cluster:{number}") as raised:
        compute(database, f"owner/tiny-law-0 + {title}")

    assert raised.value.span == (19, len(title))
    assert compute(database, f"vector:{title}").terms[0].resolved.kind == "vector"


def test_named_space_resolves_an_ambiguous_name(database: Database, tmp_path: Path):
    clusters.fill(database)
    clusters.cluster(database, tmp_path)
    cluster_id = clusters.cluster_filters(database)["owner/tiny-law-0"]
    title = compute(database, f"cluster:{cluster_id}").terms[0].resolved.title
    entries.put(database, "owner/one", [1, 0], space=LAYERS)
    save(database, title, [1, 0], LAYERS.key)

    assert compute(database, title, space_key=LAYERS.key).terms[0].resolved.kind == "vector"
    assert compute(database, title, space_key=SPACE.key).terms[0].resolved.kind == "cluster"


def put_noise_floor(database: Database, noise_floor: float) -> None:
    with database.transaction() as session:
        measurement = BaseMeasurement(np.zeros((1, 2), np.float32), noise_floor)
        spaces.store_base_measurement(session, SPACE, entries.BASE, "b" * 40, measurement)


@pytest.mark.usefixtures("models")
def test_noise_floor_of_a_sum_is_the_weighted_sum_of_its_terms(database: Database):
    assert compute(database, "owner/law").noise_floor is None
    put_noise_floor(database, 0.1)
    save(database, "stored", [1, 1])

    assert compute(database, "owner/law").noise_floor == pytest.approx(0.1)
    assert compute(database, "owner/law - 0.5*owner/math + 2*stored").noise_floor == pytest.approx(0.35)
    assert compute(database, "owner/law - 2*owner/math", unit_terms=True).noise_floor == pytest.approx(
        0.1 / 3 + 0.2 / 4
    )
