from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from catalog.arithmetic import repository as stored_vectors
from catalog.arithmetic import service as arithmetic_service
from catalog.arithmetic import terms
from catalog.arithmetic.service import ExpressionAnswer, ExpressionQuery
from catalog.auth.viewer import PUBLIC
from catalog.database import Database
from catalog.errors import (
    InvalidName,
    InvalidVector,
    ModelNotFound,
    NameTaken,
    NoShift,
    SpaceRequired,
    TermNotFound,
    TooManyVectors,
)
from catalog.index.follower import IndexFollower
from catalog.models.repository import models
from catalog.models.repository.models import Metadata
from catalog.search.service import DEFAULT_OPTIONS, SearchOptions
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseMeasurement
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.catalog import SPACE


@pytest.fixture
def index(database: Database) -> IndexFollower:
    """An index of two parts, a mixture of them, an unrelated model and one that is `no_shift`."""
    entries.put(database, "owner/law", [3, 0, 0])
    entries.put(database, "owner/math", [0, 3, 0])
    entries.put(database, "owner/mixture", [2, 2, 0.5])
    entries.put(database, "owner/chat", [0, 0, 3])
    entries.put(database, "owner/still", [1e-9, 0, 0], no_shift=True)
    index = IndexFollower(database, interval=3600)
    index.sync()
    return index


def search(
    database: Database, index: IndexFollower, text: str, options: SearchOptions = DEFAULT_OPTIONS, **fields
) -> ExpressionAnswer:
    index.sync()
    return arithmetic_service.by_expression(database, index, ExpressionQuery(text, **fields), options)


def names(answer: ExpressionAnswer) -> list[str]:
    return [neighbor.model.repo_id for neighbor in answer.answer.neighbors]


def describe(database: Database, **datasets: tuple[str, ...]) -> None:
    with database.transaction() as session:
        feed.lock_feed(session)
        for name, of_model in datasets.items():
            models.update_metadata(session, models.get(session, f"owner/{name}").id, Metadata(datasets=of_model))


def test_search_by_expression_returns_the_nearest_without_its_terms(database: Database, index: IndexFollower):
    answer = search(database, index, "owner/law + owner/math")
    assert names(answer) == ["owner/mixture", "owner/chat"]
    assert answer.answer.neighbors[0].similarity == pytest.approx(4 / (2**0.5 * 8.25**0.5))


def test_search_by_expression_takes_two_statements_per_term_and_two_more(
    database: Database,
    index: IndexFollower,
    statements: list[str],
):
    search(database, index, "owner/law + owner/math")  # loads the space
    statements.clear()
    arithmetic_service.by_expression(database, index, ExpressionQuery("owner/law + owner/math"), DEFAULT_OPTIONS)
    assert len(statements) == 2 * 2 + 2


def test_include_terms_returns_the_terms_too(database: Database, index: IndexFollower):
    assert set(names(search(database, index, "owner/law + owner/math", include_terms=True))) == {
        "owner/mixture", "owner/law", "owner/math", "owner/chat",
    }  # fmt: skip


def test_search_by_expression_applies_exclude(database: Database, index: IndexFollower):
    options = SearchOptions(exclude=("owner/mixture",))
    assert set(names(search(database, index, "owner/law", options))) == {"owner/math", "owner/chat"}


def test_sum_is_compared_with_the_requested_model(database: Database, index: IndexFollower):
    [comparison] = search(database, index, "owner/law + owner/math", compare="owner/mixture").residuals
    assert (comparison.repo_id, comparison.known_mixture) == ("owner/mixture", False)
    assert comparison.residual.relative == pytest.approx((2.25 / 8.25) ** 0.5)
    assert comparison.residual.cosine == pytest.approx(12 / (18**0.5 * 8.25**0.5))


def test_comparison_with_a_model_without_a_vector_raises(database: Database, index: IndexFollower):
    with pytest.raises(NoShift):
        search(database, index, "owner/law", compare="owner/still")
    with pytest.raises(ModelNotFound):
        search(database, index, "owner/law", compare="no/body")


def test_known_mixture_is_found_by_the_datasets_on_the_cards(database: Database, index: IndexFollower):
    describe(database, law=("a",), math=("b", "c"), mixture=("c", "b", "a"), chat=("a", "b", "c", "d"))
    [comparison] = search(database, index, "owner/law + 2*owner/math").residuals
    assert (comparison.repo_id, comparison.known_mixture) == ("owner/mixture", True)


@pytest.mark.parametrize(
    "text", ["owner/law - owner/math", "owner/law", "owner/law + owner/chat", "owner/law + owner/math + stored"]
)
def test_sums_without_differing_datasets_have_no_known_mixture(database: Database, index: IndexFollower, text: str):
    describe(database, law=("a",), math=("b",), mixture=("a", "b"), chat=("a",))
    arithmetic_service.store_vector(database, "stored", [1, 1, 1], space_key=None, note=None)
    assert search(database, index, text).residuals == []


def test_term_is_not_its_own_known_mixture(database: Database, index: IndexFollower):
    describe(database, law=("a",), math=("a", "b"))
    assert search(database, index, "owner/law + owner/math").residuals == []


def test_confidence_uses_the_noise_floor_of_the_sum(database: Database, index: IndexFollower):
    with database.transaction() as session:
        table = BaseMeasurement(np.zeros((1, 3), np.float32), 0.3)
        spaces.store_base_measurement(session, SPACE, entries.BASE, "b" * 40, table)
    confidence = search(database, index, "owner/law - 2*owner/math").answer.confidence
    assert confidence.noise_floor == pytest.approx(0.9)
    assert confidence.norm == pytest.approx(45**0.5)


def save(database: Database, name: str, expression: str, note: str | None = None) -> None:
    arithmetic_service.store_expression(database, name, expression, space_key=None, unit_terms=False, note=note)


def test_stored_expression_keeps_its_value_and_text(database: Database, index: IndexFollower):
    save(database, "both", "owner/law + owner/math", note="of the first day")
    entries.put(database, "owner/law", [9, 9, 9], commit="two")

    with database.transaction() as session:
        stored, space = stored_vectors.get(session, "both", PUBLIC)

    assert stored.numbers.tolist() == [3, 3, 0]
    assert (stored.expression, stored.note, stored.origin) == (
        "owner/law + owner/math",
        "of the first day",
        "expression",
    )
    assert space.key == SPACE.key


def test_stored_vector_can_be_a_term(database: Database, index: IndexFollower):
    save(database, "both", "owner/law + owner/math")
    answer = search(database, index, "both - owner/math")
    assert answer.total.vector.tolist() == [3, 0, 0]
    assert answer.total.terms[0].resolved.canonical == "vector:both"


def test_storing_under_a_taken_name_raises_name_taken(database: Database, index: IndexFollower):
    save(database, "both", "owner/law + owner/math")
    with pytest.raises(NameTaken):
        save(database, "both", "owner/law")
    with database.transaction() as session:
        stored_vectors.delete(session, "both", PUBLIC)
    save(database, "both", "owner/law")


@pytest.mark.parametrize("name", ["7", "a b", "a/b"])
def test_storing_under_an_invalid_name_raises_invalid_name(database: Database, index: IndexFollower, name: str):
    with pytest.raises(InvalidName):
        save(database, name, "owner/law")


def test_storing_an_invalid_vector_raises(database: Database, index: IndexFollower):
    for vector in ([0, 0, 0], [1e39, 0, 0], [float("nan"), 0, 0]):
        with pytest.raises(InvalidVector):
            arithmetic_service.store_vector(database, "new", vector, space_key=None, note=None)
    with pytest.raises(InvalidVector):
        save(database, "new", "1e-50*owner/law")
    entries.put(database, "owner/twice", [1, 0, 0], space=dataclasses.replace(SPACE, base_repo="org/other"))
    with pytest.raises(SpaceRequired):
        arithmetic_service.store_vector(database, "new", [1, 0, 0], space_key=None, note=None)


def test_storing_above_the_limit_raises_too_many_vectors(
    database: Database, index: IndexFollower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stored_vectors, "MAX_STORED", 1)
    save(database, "one", "owner/law")
    with pytest.raises(TooManyVectors):
        save(database, "two", "owner/law")


def test_unknown_name_is_compared_with_the_newest_names_only(
    database: Database, index: IndexFollower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(terms, "MAX_NAMES_SEARCHED", 2)
    for name in ("similar-1", "similar-2", "similar-3"):
        arithmetic_service.store_expression(database, name, "owner/law", space_key=None, unit_terms=False, note=None)
    with pytest.raises(TermNotFound, match="Similar names: vector:similar-") as raised:
        search(database, index, "vector:similar-9")
    assert "similar-1" not in str(raised.value)


def test_long_unknown_name_is_compared_in_part(database: Database, index: IndexFollower):
    with pytest.raises(TermNotFound, match="There is no"):
        search(database, index, "vector:" + "x" * 3_000)
