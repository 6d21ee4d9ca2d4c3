from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from catalog.arithmetic import repository as stored_vectors
from catalog.arithmetic import service as arithmetic_service
from catalog.arithmetic.service import Composed, Question
from catalog.auth.viewer import PUBLIC
from catalog.database import Database
from catalog.errors import InvalidName, InvalidVector, ModelNotFound, NameTaken, NoShift, SpaceRequired, TooManyVectors
from catalog.index.follower import Follower
from catalog.models.repository import models
from catalog.models.repository.models import Metadata
from catalog.search.service import DEFAULTS, Options
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseTable
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.catalog import SPACE


@pytest.fixture
def index(database: Database) -> Follower:
    """Two parts, a model between them, one that is neither."""
    entries.put(database, "owner/law", [3, 0, 0])
    entries.put(database, "owner/math", [0, 3, 0])
    entries.put(database, "owner/mixture", [2, 2, 0.5])
    entries.put(database, "owner/chat", [0, 0, 3])
    entries.put(database, "owner/still", [1e-9, 0, 0], no_shift=True)
    index = Follower(database, interval=3600)
    index.catch_up()
    return index


def ask(database: Database, index: Follower, text: str, options: Options = DEFAULTS, **how) -> Composed:
    index.catch_up()
    return arithmetic_service.by_expression(database, index, Question(text, **how), options)


def found(composed: Composed) -> list[str]:
    return [each.model.repo_id for each in composed.answer.neighbours]


def describe(database: Database, **datasets: tuple[str, ...]) -> None:
    with database.transaction() as session:
        feed.lock_feed(session)
        for name, own in datasets.items():
            models.describe(session, models.get(session, f"owner/{name}").id, Metadata(datasets=own))


def test_the_nearest_to_a_sum_come_first_and_its_models_do_not(database: Database, index: Follower):
    composed = ask(database, index, "owner/law + owner/math")
    assert found(composed) == ["owner/mixture", "owner/chat"]
    assert composed.answer.neighbours[0].similarity == pytest.approx(4 / (2**0.5 * 8.25**0.5))


def test_a_sum_takes_two_statements_a_model_and_two_more(
    database: Database,
    index: Follower,
    statements: list[str],
):
    ask(database, index, "owner/law + owner/math")  # loads the space
    statements.clear()
    arithmetic_service.by_expression(database, index, Question("owner/law + owner/math"), DEFAULTS)
    assert len(statements) == 2 * 2 + 2


def test_its_models_are_found_where_that_is_asked_for(database: Database, index: Follower):
    assert set(found(ask(database, index, "owner/law + owner/math", include_terms=True))) == {
        "owner/mixture", "owner/law", "owner/math", "owner/chat",
    }  # fmt: skip


def test_a_sum_is_filtered_like_every_search(database: Database, index: Follower):
    options = Options(exclude=("owner/mixture",))
    assert set(found(ask(database, index, "owner/law", options))) == {"owner/math", "owner/chat"}


def test_a_sum_is_held_against_the_model_that_is_named(database: Database, index: Follower):
    [compared] = ask(database, index, "owner/law + owner/math", compare="owner/mixture").compared
    assert (compared.repo_id, compared.known) == ("owner/mixture", False)
    assert compared.residual.relative == pytest.approx((2.25 / 8.25) ** 0.5)
    assert compared.residual.cosine == pytest.approx(12 / (18**0.5 * 8.25**0.5))


def test_a_model_without_a_vector_cannot_be_compared_with(database: Database, index: Follower):
    with pytest.raises(NoShift):
        ask(database, index, "owner/law", compare="owner/still")
    with pytest.raises(ModelNotFound):
        ask(database, index, "owner/law", compare="no/body")


def test_a_mixture_is_known_by_the_datasets_on_the_cards(database: Database, index: Follower):
    describe(database, law=("a",), math=("b", "c"), mixture=("c", "b", "a"), chat=("a", "b", "c", "d"))
    [compared] = ask(database, index, "owner/law + 2*owner/math").compared
    assert (compared.repo_id, compared.known) == ("owner/mixture", True)


@pytest.mark.parametrize(
    "text", ["owner/law - owner/math", "owner/law", "owner/law + owner/chat", "owner/law + owner/math + stored"]
)
def test_no_mixture_is_known_of_what_is_no_sum_of_different_trainings(database: Database, index: Follower, text: str):
    describe(database, law=("a",), math=("b",), mixture=("a", "b"), chat=("a",))
    arithmetic_service.save_vector(database, "stored", [1, 1, 1], space_key=None, note=None)
    assert ask(database, index, text).compared == []


def test_a_term_is_no_mixture_of_itself(database: Database, index: Follower):
    describe(database, law=("a",), math=("a", "b"))
    assert ask(database, index, "owner/law + owner/math").compared == []


def test_confidence_rests_on_the_noise_of_the_whole_sum(database: Database, index: Follower):
    with database.transaction() as session:
        table = BaseTable(np.zeros((1, 3), np.float32), 0.3)
        spaces.store_base_table(session, SPACE, entries.BASE, "b" * 40, table)
    confidence = ask(database, index, "owner/law - 2*owner/math").answer.confidence
    assert confidence.noise_floor == pytest.approx(0.9)
    assert confidence.norm == pytest.approx(45**0.5)


def save(database: Database, name: str, expression: str, **how) -> None:
    how = {"space_key": None, "unit_terms": False, "note": None} | how
    arithmetic_service.save_expression(database, name, expression, **how)


def test_a_stored_expression_keeps_its_value_and_its_text(database: Database, index: Follower):
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


def test_a_stored_vector_is_a_term(database: Database, index: Follower):
    save(database, "both", "owner/law + owner/math")
    composed = ask(database, index, "both - owner/math")
    assert composed.total.vector.tolist() == [3, 0, 0]
    assert composed.total.terms[0].meaning.full == "vector:both"


def test_a_name_is_taken_once(database: Database, index: Follower):
    save(database, "both", "owner/law + owner/math")
    with pytest.raises(NameTaken):
        save(database, "both", "owner/law")
    with database.transaction() as session:
        stored_vectors.remove(session, "both", PUBLIC)
    save(database, "both", "owner/law")


@pytest.mark.parametrize("name", ["7", "a b", "a/b"])
def test_a_name_that_an_expression_cannot_hold_is_refused(database: Database, index: Follower, name: str):
    with pytest.raises(InvalidName):
        save(database, name, "owner/law")


def test_a_vector_has_to_fit_a_space_and_be_something(database: Database, index: Follower):
    for vector in ([0, 0, 0], [1e39, 0, 0], [float("nan"), 0, 0]):
        with pytest.raises(InvalidVector):
            arithmetic_service.save_vector(database, "new", vector, space_key=None, note=None)
    with pytest.raises(InvalidVector):
        save(database, "new", "1e-50*owner/law")
    entries.put(database, "owner/twice", [1, 0, 0], space=dataclasses.replace(SPACE, base_repo="org/other"))
    with pytest.raises(SpaceRequired):
        arithmetic_service.save_vector(database, "new", [1, 0, 0], space_key=None, note=None)


def test_only_so_many_are_stored(database: Database, index: Follower, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stored_vectors, "MOST", 1)
    save(database, "one", "owner/law")
    with pytest.raises(TooManyVectors):
        save(database, "two", "owner/law")
