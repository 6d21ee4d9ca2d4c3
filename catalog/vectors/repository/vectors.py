"""SQL of the newest vectors of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Select, case, func, select, true, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from catalog.auth.repository.access import visible_models
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.errors import CatalogError, ModelNotFound, NotIndexed
from catalog.models.repository import names
from catalog.spaces import repository as spaces
from catalog.spaces.contract import BASE_INDEPENDENT_FIELDS, PREFERRED_FEATURES, Space
from catalog.tables import BaseActivations, Model, Revision, SpaceRow, Vector

# joins a vector with the activations of its revision's base in its space
_BASE_OF_VECTOR = (
    (BaseActivations.space_id == Vector.space_id)
    & (BaseActivations.base_repo == Revision.base_repo)
    & (BaseActivations.base_sha == Revision.base_sha)
)


@dataclass(frozen=True)
class StoredEncoding:
    """A model's newest vector in a space: float32 (d,), its norm, and the noise floor of its base there (a norm)."""

    model: Model
    revision: Revision
    space: SpaceRow
    vector: np.ndarray
    norm: float
    no_shift: bool
    explanation: dict | None
    noise_floor: float | None  # None if it was not measured


def get_encoding(
    session: Session,
    repo_id: str,
    *,
    features: Sequence[str] = PREFERRED_FEATURES,
    space_key: str | None = None,
    viewer: Viewer = PUBLIC,
) -> StoredEncoding:
    """A model's newest vector, in a space named `space_key` if it is given.

    Otherwise in the newest serving space of the first of `features` that the model's newest revision has, or in a space
    that does not serve if the model is in no other. Executes one statement if there is a vector.

    Raises `ModelNotFound`, `SpaceNotFound` and `NotIndexed`.
    """
    encoding = get_encodings(session, [repo_id], features=features, space_key=space_key, viewer=viewer)[repo_id]
    if isinstance(encoding, CatalogError):
        raise encoding
    return encoding


def get_encodings(
    session: Session,
    repo_ids: Sequence[str],
    *,
    features: Sequence[str] = PREFERRED_FEATURES,
    space_key: str | None = None,
    viewer: Viewer = PUBLIC,
) -> dict[str, StoredEncoding | CatalogError]:
    """The encodings of several models by repo id. If `get_encoding` would raise for a model, its value is the error.

    Raises `SpaceNotFound`.
    """
    query = _EncodingQuery(features, space_key, viewer)
    encodings = _find_encodings(session, repo_ids, query)
    unknown = [repo_id for repo_id, encoding in encodings.items() if isinstance(encoding, ModelNotFound)]
    renamed = names.current_names(session, unknown, viewer) if unknown else {}
    if renamed:
        by_current_name = _find_encodings(session, list(renamed.values()), query)
        encodings |= {former: by_current_name[current] for former, current in renamed.items()}
    return encodings


@dataclass(frozen=True)
class _EncodingQuery:
    """The spaces in which a vector is searched, and the viewer."""

    features: Sequence[str]
    space_key: str | None
    viewer: Viewer

    def __str__(self) -> str:
        return f"in space {self.space_key}" if self.space_key else f"for {' or '.join(self.features)}"


def _find_encodings(
    session: Session, repo_ids: Sequence[str], query: _EncodingQuery
) -> dict[str, StoredEncoding | CatalogError]:
    """`get_encodings` by the models' current names."""
    encodings: dict[str, StoredEncoding | CatalogError] = {repo_id: _model_not_found(repo_id) for repo_id in repo_ids}
    missing = False
    for model, vector, space, revision, noise_floor in session.execute(_encodings_statement(repo_ids, query)):
        if vector is None:
            missing = True
            encodings[model.repo_id] = NotIndexed(
                f"{model.repo_id} has no vector {query} yet (it is {model.state}). See its job for the reason."
            )
        else:
            encodings[model.repo_id] = _encoding(model, revision, space, vector, noise_floor)
    if missing and query.space_key:
        spaces.get(session, query.space_key, query.viewer)  # raises if there is no such space
    return encodings


def _encodings_statement(
    repo_ids: Sequence[str], query: _EncodingQuery
) -> Select[Model, Vector, SpaceRow, Revision, float]:
    """Selects each model of those names that the viewer sees, with its newest vector or nulls."""
    in_space = spaces.matches_name(query.space_key) if query.space_key else SpaceRow.feature.in_(query.features)
    preference = case({name: rank for rank, name in enumerate(query.features)}, value=SpaceRow.feature)
    # the last seq of each revision, so that only the newest revision counts
    latest = func.max(Vector.seq).over(partition_by=(Vector.revision_id, SpaceRow.serving))
    ranks = (SpaceRow.serving, preference.label("preference"), latest.label("latest"))
    vectors = (
        select(Vector.id, Vector.seq, *ranks)
        .select_from(Vector)
        .join(SpaceRow, SpaceRow.id == Vector.space_id)
        .where(in_space, ~Vector.deleted, Vector.model_id == Model.id)
        .correlate(Model)
        .lateral()
    )
    return (
        select(Model, Vector, SpaceRow, Revision, BaseActivations.noise_floor)
        .ext(distinct_on(Model.id))
        .select_from(Model)
        .outerjoin(vectors, true())
        .outerjoin(Vector, Vector.id == vectors.c.id)
        .outerjoin(SpaceRow, SpaceRow.id == Vector.space_id)
        .outerjoin(Revision, Revision.id == Vector.revision_id)
        .outerjoin(BaseActivations, _BASE_OF_VECTOR)
        .where(Model.repo_id.in_(repo_ids), visible_models(query.viewer))
        .order_by(
            Model.id,
            vectors.c.serving.desc(),
            vectors.c.latest.desc(),
            vectors.c.preference,
            vectors.c.seq.desc(),
        )
    )


def list_encodings(session: Session, model: Model) -> list[StoredEncoding]:
    """A model's vectors in every space that its current revision has."""
    statement = (
        select(Revision, SpaceRow, Vector, BaseActivations.noise_floor)
        .join(Vector, Vector.revision_id == Revision.id)
        .join(SpaceRow, SpaceRow.id == Vector.space_id)
        .outerjoin(BaseActivations, _BASE_OF_VECTOR)
        .where(Revision.model_id == model.id, Revision.current, ~Vector.deleted)
    )
    return [
        _encoding(model, revision, space, vector, floor)
        for revision, space, vector, floor in session.execute(statement)
    ]


def _encoding(
    model: Model, revision: Revision, space: SpaceRow, row: Vector, noise_floor: float | None
) -> StoredEncoding:
    values = np.frombuffer(row.data, dtype="<f4")
    return StoredEncoding(model, revision, space, values, row.norm, row.no_shift, row.explanation, noise_floor)


def _model_not_found(repo_id: str) -> ModelNotFound:
    return ModelNotFound(f"{repo_id} is not in this catalog. Submit it with POST /v1/models or `deltadex add`.")


@dataclass(frozen=True)
class Measurement:
    """The measurement of a model in one space: its norm, the noise floor of its base there, and its explanation."""

    space: SpaceRow
    norm: float
    noise_floor: float
    no_shift: bool
    explanation: dict | None


def list_measurements(session: Session, model_id: int) -> list[Measurement]:
    """The measurements of a model's current revision in serving spaces, newest space first; if it is in none, those in
    all other spaces. Their vectors are not read.
    """
    statement = (
        select(SpaceRow, Vector.norm, BaseActivations.noise_floor, Vector.no_shift, Vector.explanation)
        .join(Vector, Vector.space_id == SpaceRow.id)
        .join(Revision, Revision.id == Vector.revision_id)
        .join(BaseActivations, _BASE_OF_VECTOR)
        .where(Vector.model_id == model_id, Revision.current, ~Vector.deleted)
        .order_by(SpaceRow.id.desc())
    )
    measurements = [Measurement(*row) for row in session.execute(statement)]
    return [measurement for measurement in measurements if measurement.space.serving] or measurements


def find_embedded_revision(
    session: Session, model_id: int, sha: str, contracts: Sequence[Space], base: str | None = None
) -> Revision | None:
    """The revision `sha` of a model, if it has a vector in the write target of each contract: on the base that a
    submission names, or on any if it names none.

    `contracts` has one space per feature.
    """
    columns = [getattr(SpaceRow, name) for name in BASE_INDEPENDENT_FIELDS]
    under_contract = tuple_(*columns).in_(
        [tuple(getattr(space, name) for name in BASE_INDEPENDENT_FIELDS) for space in contracts]
    )
    statement = (
        select(Revision)
        .join(Vector, Vector.revision_id == Revision.id)
        .join(SpaceRow, SpaceRow.id == Vector.space_id)
        .where(Revision.model_id == model_id, Revision.sha == sha, under_contract, spaces.is_write_target())
        .where(SpaceRow.is_of_base(Revision.base_repo), Revision.is_measured_on(base) if base else true())
        .group_by(Revision.id)
        .having(func.count(SpaceRow.feature.distinct()) == len(contracts))
    )
    return session.scalars(statement).first()


def is_indexed(session: Session, model_id: int, sha: str, base: str | None = None) -> bool:
    """Whether that commit is the model's current one and has a live vector in any space, on the base that a submission
    names if it names one.
    """
    statement = (
        select(Vector.id)
        .join(Revision, Revision.id == Vector.revision_id)
        .where(Revision.model_id == model_id, Revision.sha == sha, Revision.current, ~Vector.deleted)
        .where(Revision.is_measured_on(base) if base else true())
        .limit(1)
    )
    return session.execute(statement).first() is not None
