"""Expressions over named vectors: search with them, compare them with models, and store vectors under names."""

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
from catalog.index.follower import IndexFollower
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.search import service as search_service
from catalog.search.service import SearchAnswer, SearchOptions
from catalog.spaces import repository as spaces
from catalog.tables import SpaceRow, StoredVector, VectorOrigin
from catalog.vectors.numeric import validate_vector
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import StoredEncoding

MAX_MIXTURES = 5  # known mixtures that a sum is compared with


@dataclass(frozen=True)
class ExpressionQuery:
    """A search with an expression. `unit_terms` scales every term to length 1, `include_terms` allows the models that
    are terms as neighbors, and `compare` is the repo id of a model to compare the sum with (None: the known mixtures).
    """

    expression: str
    unit_terms: bool = False
    include_terms: bool = False
    compare: str | None = None


@dataclass(frozen=True)
class ModelResidual:
    """How well the sum predicts a model. `known_mixture`: the cards say that the model is a mixture of the terms."""

    repo_id: str
    known_mixture: bool
    residual: Residual


@dataclass(frozen=True)
class ExpressionAnswer:
    """The answer to a query, with the value of its expression and the residuals of the compared models."""

    query: ExpressionQuery
    total: Sum
    answer: SearchAnswer
    residuals: list[ModelResidual]


def search(
    database: Database, index: IndexFollower, query: ExpressionQuery | list[float] | RepoRef, options: SearchOptions
) -> ExpressionAnswer | SearchAnswer:
    """Search by expression, by vector, or by model. Raises what `by_expression`, `search_service.by_vector` and
    `search_service.by_model` raise.
    """
    if isinstance(query, ExpressionQuery):
        return by_expression(database, index, query, options)
    if isinstance(query, RepoRef):
        return search_service.by_model(database, index, query.repo_id, options)
    return search_service.by_vector(database, index, query, options)


def by_expression(
    database: Database, index: IndexFollower, query: ExpressionQuery, options: SearchOptions
) -> ExpressionAnswer:
    """The models nearest to a sum, and how well the sum predicts the models that it is compared with.

    Raises what `sums.compute` raises, `ModelNotFound`, `NotIndexed` and `NoShift` for the model to compare with, and
    `IndexNotLoaded`.
    """
    with database.transaction() as session:
        total = sums.compute(
            session,
            query.expression,
            space_key=options.space_key,
            unit_terms=query.unit_terms,
            viewer=options.viewer,
        )
        excluded = models.list_ids(session, options.exclude, options.viewer) if options.exclude else []
        compared = _comparison_models(session, total, query.compare, options.viewer)
    if not query.include_terms:
        excluded += [term.resolved.model.id for term in total.terms if term.resolved.model]
    answer = search_service.by_space_vector(
        database, index, total.space, total.vector, total.noise_floor, options, excluded
    )
    residuals = [
        ModelResidual(encoding.model.repo_id, not query.compare, additivity.residual(encoding.vector, total.vector))
        for encoding in compared
    ]
    return ExpressionAnswer(query, total, answer, residuals)


def _comparison_models(session: Session, total: Sum, compare: str | None, viewer: Viewer) -> list[StoredEncoding]:
    """The encoding of the model `compare`, or else those of the known mixtures."""
    return [_requested_model(session, total, compare, viewer)] if compare else _known_mixtures(session, total, viewer)


def _requested_model(session: Session, total: Sum, repo_id: str, viewer: Viewer) -> StoredEncoding:
    encoding = vectors.get_encoding(session, repo_id, space_key=total.space.key, viewer=viewer)
    if encoding.no_shift:
        raise NoShift(f"{repo_id} is indistinguishable from its base model, so a sum cannot be compared with it.")
    return encoding


def _known_mixtures(session: Session, total: Sum, viewer: Viewer) -> list[StoredEncoding]:
    """Models whose cards list exactly the union of the datasets on the cards of the terms. There are none unless every
    term is a model with datasets and a positive weight, and the terms' datasets differ.
    """
    terms = [term.resolved.model for term in total.terms]
    datasets = [frozenset(model.datasets) if model else frozenset() for model in terms]
    if len(set(datasets)) < 2 or not all(datasets) or any(term.weight <= 0 for term in total.terms):
        return []
    term_ids = {model.repo_id for model in terms if model}
    union = sorted(frozenset().union(*datasets))
    repo_ids = models.list_by_datasets(session, total.space.id, union, MAX_MIXTURES + len(term_ids), viewer)
    repo_ids = [repo_id for repo_id in repo_ids if repo_id not in term_ids][:MAX_MIXTURES]
    if not repo_ids:
        return []
    encodings = vectors.get_encodings(session, repo_ids, space_key=total.space.key, viewer=viewer)
    return [
        encoding for encoding in encodings.values() if not isinstance(encoding, CatalogError) and not encoding.no_shift
    ]


def get(database: Database, name: str, viewer: Viewer = PUBLIC) -> tuple[StoredVector, SpaceRow]:
    """Raises `VectorNotFound`."""
    with database.transaction() as session:
        return stored_vectors.get(session, name, viewer)


def list_page(
    database: Database, *, after: int | None, limit: int, viewer: Viewer = PUBLIC
) -> list[tuple[StoredVector, SpaceRow]]:
    """Up to `limit` stored vectors with an id above `after`, oldest first."""
    with database.transaction() as session:
        return stored_vectors.list_page(session, viewer, after=after or 0, limit=limit)


def delete(database: Database, name: str, viewer: Viewer = PUBLIC) -> tuple[StoredVector, SpaceRow]:
    """Delete a stored vector and return it. Raises `VectorNotFound`."""
    with database.transaction() as session:
        return stored_vectors.delete(session, name, viewer)


def store(
    database: Database,
    name: str,
    value: str | list[float],
    *,
    space_key: str | None,
    unit_terms: bool,
    note: str | None,
    viewer: Viewer = PUBLIC,
) -> tuple[StoredVector, SpaceRow]:
    """Store the current value of an expression, or a vector, under a name. Raises what `save_expression` and
    `save_vector` raise.
    """
    if isinstance(value, str):
        return store_expression(
            database, name, value, space_key=space_key, unit_terms=unit_terms, note=note, viewer=viewer
        )
    return store_vector(database, name, value, space_key=space_key, note=note, viewer=viewer)


def store_expression(
    database: Database,
    name: str,
    expression: str,
    *,
    space_key: str | None,
    unit_terms: bool,
    note: str | None,
    viewer: Viewer = PUBLIC,
) -> tuple[StoredVector, SpaceRow]:
    """Store the current value of an expression under a name.

    Raises `InvalidName`, `NameTaken`, `TooManyVectors`, `InvalidVector` and what `sums.compute` raises.
    """
    check_name(name)
    with database.transaction() as session:
        total = sums.compute(session, expression, space_key=space_key, unit_terms=unit_terms, viewer=viewer)
        values = {"origin": VectorOrigin.EXPRESSION, "expression": expression, "unit_terms": unit_terms}
        values["viewer"] = viewer.submitter
        return _store(session, name, total.space, total.vector, total.noise_floor, note, values)


def store_vector(
    database: Database,
    name: str,
    vector: list[float],
    *,
    space_key: str | None,
    note: str | None,
    viewer: Viewer = PUBLIC,
) -> tuple[StoredVector, SpaceRow]:
    """Store a vector of a space under a name. The space need not be named if only one has that dimension.

    Raises `InvalidName`, `NameTaken`, `TooManyVectors`, `SpaceNotFound`, `SpaceRequired`, `SpaceMismatch`,
    `InvalidVector`.
    """
    check_name(name)
    with database.transaction() as session:
        space = search_service.resolve_space(session, space_key, len(vector), viewer)
        floor = spaces.max_noise_floor(session, space.id)
        values = {"origin": VectorOrigin.VECTOR, "viewer": viewer.submitter}
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
    vector = validate_vector(vector, space.dimension)
    values |= {"noise_floor": floor, "note": storable(note) if note else None}
    return stored_vectors.store(session, name, space, vector, **values), space
