"""The newest vectors of models, and what was measured of their bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Select, case, func, select, true, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from catalog.auth.repository import visible
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.errors import CatalogError, ModelNotFound, NotIndexed
from catalog.models.repository import names
from catalog.spaces import repository as spaces
from catalog.spaces.contract import PREFERRED, Space
from catalog.tables import BaseActivations, Model, Revision, SpaceRow, Vector

# joins a vector with what was measured of its revision's own base in its space
_OWN_BASE = (
    (BaseActivations.space_id == Vector.space_id)
    & (BaseActivations.base_repo == Revision.base_repo)
    & (BaseActivations.base_sha == Revision.base_sha)
)


@dataclass(frozen=True)
class Stored:
    """A model's newest vector in a space: float32 (d,), its norm, and the noise floor of its base there (a norm)."""

    model: Model
    revision: Revision
    space: SpaceRow
    vector: np.ndarray
    norm: float
    no_shift: bool
    explanation: dict | None
    noise_floor: float | None  # None: not measured


def newest(
    session: Session,
    repo_id: str,
    *,
    features: Sequence[str] = PREFERRED,
    space_key: str | None = None,
    viewer: Viewer = PUBLIC,
) -> Stored:
    """A model's newest vector in a space of that name, or else in its newest serving space of the first of those
    features that its newest revision has; in one that does not serve where it is in no other.

    One statement where there is one. Raises `ModelNotFound`, `SpaceNotFound` and `NotIndexed`.
    """
    found = newest_of(session, [repo_id], features=features, space_key=space_key, viewer=viewer)[repo_id]
    if isinstance(found, CatalogError):
        raise found
    return found


def newest_of(
    session: Session,
    repo_ids: Sequence[str],
    *,
    features: Sequence[str] = PREFERRED,
    space_key: str | None = None,
    viewer: Viewer = PUBLIC,
) -> dict[str, Stored | CatalogError]:
    """As `newest` for several models at once: what it would raise stands in the place of what it would return.

    Raises `SpaceNotFound` itself.
    """
    wanted = _Wanted(features, space_key, viewer)
    found = _look_up(session, repo_ids, wanted)
    unknown = [repo_id for repo_id, each in found.items() if isinstance(each, ModelNotFound)]
    renamed = names.current(session, unknown) if unknown else {}
    if renamed:
        now = _look_up(session, list(renamed.values()), wanted)
        found |= {former: now[repo_id] for former, repo_id in renamed.items()}
    return found


@dataclass(frozen=True)
class _Wanted:
    """In which spaces a vector is looked for, and for whom."""

    features: Sequence[str]
    space_key: str | None
    viewer: Viewer

    def __str__(self) -> str:
        return f"in space {self.space_key}" if self.space_key else f"for {' or '.join(self.features)}"


def _look_up(session: Session, repo_ids: Sequence[str], wanted: _Wanted) -> dict[str, Stored | CatalogError]:
    """As `newest_of`, by the names that models have now."""
    found: dict[str, Stored | CatalogError] = {repo_id: _unknown(repo_id) for repo_id in repo_ids}
    missing = False
    for model, vector, space, revision, noise_floor in session.execute(_newest_statement(repo_ids, wanted)):
        if vector is None:
            missing = True
            found[model.repo_id] = NotIndexed(
                f"{model.repo_id} has no vector {wanted} yet (it is {model.state}). Look at its job for the reason."
            )
        else:
            found[model.repo_id] = _stored(model, revision, space, vector, noise_floor)
    if missing and wanted.space_key:
        spaces.get(session, wanted.space_key, wanted.viewer)  # raises where the space itself is unknown
    return found


def _newest_statement(repo_ids: Sequence[str], wanted: _Wanted) -> Select[Model, Vector, SpaceRow, Revision, float]:
    """Each model of those names that the viewer sees, with its newest vector; without one where there is none."""
    in_space = spaces.named(wanted.space_key) if wanted.space_key else SpaceRow.feature.in_(wanted.features)
    preferred = case({name: place for place, name in enumerate(wanted.features)}, value=SpaceRow.feature)
    # of the revision: the newest one counts alone
    latest = func.max(Vector.seq).over(partition_by=(Vector.revision_id, SpaceRow.serving))
    ranks = (SpaceRow.serving, preferred.label("preference"), latest.label("latest"))
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
        .outerjoin(BaseActivations, _OWN_BASE)
        .where(Model.repo_id.in_(repo_ids), visible(wanted.viewer))
        .order_by(
            Model.id,
            vectors.c.serving.desc(),
            vectors.c.latest.desc(),
            vectors.c.preference,
            vectors.c.seq.desc(),
        )
    )


def in_spaces(session: Session, model: Model) -> list[Stored]:
    """A model's vectors in every space that its current revision has."""
    statement = (
        select(Revision, SpaceRow, Vector, BaseActivations.noise_floor)
        .join(Vector, Vector.revision_id == Revision.id)
        .join(SpaceRow, SpaceRow.id == Vector.space_id)
        .outerjoin(BaseActivations, _OWN_BASE)
        .where(Revision.model_id == model.id, Revision.current, ~Vector.deleted)
    )
    return [
        _stored(model, revision, space, vector, floor) for revision, space, vector, floor in session.execute(statement)
    ]


def _stored(model: Model, revision: Revision, space: SpaceRow, row: Vector, noise_floor: float | None) -> Stored:
    values = np.frombuffer(row.data, dtype="<f4")
    return Stored(model, revision, space, values, row.norm, row.no_shift, row.explanation, noise_floor)


def _unknown(repo_id: str) -> ModelNotFound:
    return ModelNotFound(f"{repo_id} is not in this catalog. Submit it with POST /v1/models or `deltadex add`.")


@dataclass(frozen=True)
class Measured:
    """What is known of a model in one space: how far it moved (a norm), what counts as noise there, and the tokens."""

    space: SpaceRow
    norm: float
    noise_floor: float
    no_shift: bool
    explanation: dict | None


def measured(session: Session, model_id: int) -> list[Measured]:
    """The vectors of a model's current revision in the serving spaces, without their numbers, the newest space first;
    in all others where no space with it serves.
    """
    statement = (
        select(SpaceRow, Vector.norm, BaseActivations.noise_floor, Vector.no_shift, Vector.explanation)
        .join(Vector, Vector.space_id == SpaceRow.id)
        .join(Revision, Revision.id == Vector.revision_id)
        .join(BaseActivations, _OWN_BASE)
        .where(Vector.model_id == model_id, Revision.current, ~Vector.deleted)
        .order_by(SpaceRow.id.desc())
    )
    found = [Measured(*row) for row in session.execute(statement)]
    return [each for each in found if each.space.serving] or found


def embedded(session: Session, model_id: int, sha: str, contracts: Sequence[Space]) -> Revision | None:
    """The revision `sha` of a model when it has a vector at home (`spaces.home`) under each contract: one a feature,
    whatever the base.
    """
    like = tuple_(SpaceRow.feature, SpaceRow.layer, SpaceRow.probe_set, SpaceRow.dtype, SpaceRow.encoder_version).in_(
        [(each.feature, each.layer, each.probe_set, each.dtype, each.encoder_version) for each in contracts]
    )
    statement = (
        select(Revision)
        .join(Vector, Vector.revision_id == Revision.id)
        .join(SpaceRow, SpaceRow.id == Vector.space_id)
        .where(Revision.model_id == model_id, Revision.sha == sha, like, spaces.is_home())
        .group_by(Revision.id)
        .having(func.count(SpaceRow.feature.distinct()) == len(contracts))
    )
    return session.scalars(statement).first()


def is_indexed(session: Session, model_id: int, sha: str) -> bool:
    """Whether that commit is the model's current one and has a live vector in any space."""
    statement = (
        select(Vector.id)
        .join(Revision, Revision.id == Vector.revision_id)
        .where(Revision.model_id == model_id, Revision.sha == sha, Revision.current, ~Vector.deleted)
        .limit(1)
    )
    return session.execute(statement).first() is not None
