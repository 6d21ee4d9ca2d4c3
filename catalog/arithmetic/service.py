"""Sums of named vectors: searched with, held against models that learned the same, stored under a name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from catalog.arithmetic import additivity, sums
from catalog.arithmetic import repository as stored_vectors
from catalog.arithmetic.additivity import Residual
from catalog.arithmetic.expressions import check_name
from catalog.arithmetic.sums import Sum
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database, storable
from catalog.errors import CatalogError, NoShift
from catalog.index.follower import Follower
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.search import service as search_service
from catalog.search.service import Answer, Options
from catalog.spaces import repository as spaces
from catalog.tables import SpaceRow, StoredVector, VectorOrigin
from catalog.vectors.numeric import checked
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import Stored

MOST_MIXTURES = 5  # known ones that a sum is held against


@dataclass(frozen=True)
class Question:
    """A sum to search with: every term at length 1 or as it is, its models among what may be found or not, and the
    repo id of a model that it is to be held against (None: the mixtures that are known).
    """

    expression: str
    unit_terms: bool = False
    include_terms: bool = False
    compare: str | None = None


@dataclass(frozen=True)
class Compared:
    """A model beside the sum; `known` where its card says that it is that mixture, and nobody had to."""

    repo_id: str
    known: bool
    residual: Residual


@dataclass(frozen=True)
class Composed:
    question: Question
    total: Sum
    answer: Answer
    compared: list[Compared]


def search(
    database: Database, index: Follower, query: Question | list[float] | RepoRef, options: Options
) -> Composed | Answer:
    """The models nearest to a sum, to a vector, or to a model. Raises what `by_expression`, `search_service.by_vector`
    and `search_service.by_model` raise.
    """
    if isinstance(query, Question):
        return by_expression(database, index, query, options)
    if isinstance(query, RepoRef):
        return search_service.by_model(database, index, query.repo_id, options)
    return search_service.by_vector(database, index, query, options)


def by_expression(database: Database, index: Follower, question: Question, options: Options) -> Composed:
    """The models nearest to a sum, and how well the sum predicts a model of that mixture.

    Raises what `sums.compute` raises; `ModelNotFound`, `NotIndexed` and `NoShift` of the model to compare with;
    `GeometryNotFitted`, `IndexNotLoaded`.
    """
    with database.transaction() as session:
        total = sums.compute(
            session,
            question.expression,
            space_key=options.space_key,
            unit_terms=question.unit_terms,
            viewer=options.viewer,
        )
        excluded = models.ids(session, options.exclude) if options.exclude else []
        beside = _beside(session, total, question.compare, options.viewer)
    if not question.include_terms:
        excluded += [each.meaning.model.id for each in total.terms if each.meaning.model]
    answer = search_service.near(database, index, total.space, total.vector, total.noise_floor, options, excluded)
    compared = [
        Compared(each.model.repo_id, not question.compare, additivity.residual(each.vector, total.vector))
        for each in beside
    ]
    return Composed(question, total, answer, compared)


def _beside(session: Session, total: Sum, compare: str | None, viewer: Viewer) -> list[Stored]:
    """The model that was asked for, or the known mixtures."""
    return [_asked(session, total, compare, viewer)] if compare else _mixtures(session, total, viewer)


def _asked(session: Session, total: Sum, repo_id: str, viewer: Viewer) -> Stored:
    stored = vectors.newest(session, repo_id, space_key=total.space.key, viewer=viewer)
    if stored.no_shift:
        raise NoShift(f"{repo_id} does not move its base measurably: there is nothing to compare the sum with.")
    return stored


def _mixtures(session: Session, total: Sum, viewer: Viewer) -> list[Stored]:
    """The models whose cards name exactly the datasets that the terms' cards name together, where these differ and all
    terms are added.
    """
    terms = [each.meaning.model for each in total.terms]
    sets = [frozenset(model.datasets) if model else frozenset() for model in terms]
    if len(set(sets)) < 2 or not all(sets) or any(each.weight <= 0 for each in total.terms):
        return []
    own = {model.repo_id for model in terms if model}
    union = sorted(frozenset().union(*sets))
    names = models.trained_on(session, total.space.id, union, MOST_MIXTURES + len(own), viewer)
    names = [name for name in names if name not in own][:MOST_MIXTURES]
    found = vectors.newest_of(session, names, space_key=total.space.key, viewer=viewer) if names else {}
    return [each for each in found.values() if not isinstance(each, CatalogError) and not each.no_shift]


def get(database: Database, name: str, viewer: Viewer = PUBLIC) -> tuple[StoredVector, SpaceRow]:
    """Raises `VectorNotFound`."""
    with database.transaction() as session:
        return stored_vectors.get(session, name, viewer)


def page(
    database: Database, *, after: int | None, limit: int, viewer: Viewer = PUBLIC
) -> list[tuple[StoredVector, SpaceRow]]:
    """Up to `limit` stored vectors with an id above `after`, the oldest first."""
    with database.transaction() as session:
        return stored_vectors.page(session, viewer, after=after or 0, limit=limit)


def delete(database: Database, name: str, viewer: Viewer = PUBLIC) -> tuple[StoredVector, SpaceRow]:
    """Returns what it was. Raises `VectorNotFound`."""
    with database.transaction() as session:
        return stored_vectors.remove(session, name, viewer)


def save(
    database: Database,
    name: str,
    value: str | list[float],
    *,
    space_key: str | None,
    unit_terms: bool,
    note: str | None,
    viewer: Viewer = PUBLIC,
) -> tuple[StoredVector, SpaceRow]:
    """What an expression comes to now, or a vector, under a name. Raises what `save_expression` and `save_vector`
    raise.
    """
    if isinstance(value, str):
        return save_expression(
            database, name, value, space_key=space_key, unit_terms=unit_terms, note=note, viewer=viewer
        )
    return save_vector(database, name, value, space_key=space_key, note=note, viewer=viewer)


def save_expression(
    database: Database,
    name: str,
    expression: str,
    *,
    space_key: str | None,
    unit_terms: bool,
    note: str | None,
    viewer: Viewer = PUBLIC,
) -> tuple[StoredVector, SpaceRow]:
    """The value that an expression has now, under a name.

    Raises `InvalidName`, `NameTaken`, `TooManyVectors`, `InvalidVector` and what `sums.compute` raises.
    """
    check_name(name)
    with database.transaction() as session:
        total = sums.compute(session, expression, space_key=space_key, unit_terms=unit_terms, viewer=viewer)
        values = {"origin": VectorOrigin.EXPRESSION, "expression": expression, "unit_terms": unit_terms}
        values["viewer"] = viewer.submitter
        return _store(session, name, total.space, total.vector, total.noise_floor, note, values)


def save_vector(
    database: Database,
    name: str,
    vector: list[float],
    *,
    space_key: str | None,
    note: str | None,
    viewer: Viewer = PUBLIC,
) -> tuple[StoredVector, SpaceRow]:
    """A vector of a space under a name; the space may be left out while one alone has that dimension.

    Raises `InvalidName`, `NameTaken`, `TooManyVectors`, `SpaceNotFound`, `SpaceRequired`, `SpaceMismatch`,
    `InvalidVector`.
    """
    check_name(name)
    with database.transaction() as session:
        space = search_service.space_of(session, space_key, len(vector), viewer)
        floor = spaces.noise_floor(session, space.id)
        values = {"origin": VectorOrigin.GIVEN, "viewer": viewer.submitter}
        return _store(session, name, space, np.array(vector, np.float64), floor, note, values)


def _store(
    session: Session,
    name: str,
    space: SpaceRow,
    vector: np.ndarray,
    floor: float | None,
    note: str | None,
    values: dict,
) -> tuple[StoredVector, SpaceRow]:
    vector = checked(vector, space.dimension)
    values |= {"noise_floor": floor, "note": storable(note) if note else None}
    return stored_vectors.store(session, name, space, vector, **values), space
