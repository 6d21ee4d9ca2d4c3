"""Vectors and the change feed.

Every write of a vector draws its `seq` under one advisory lock that is held until the commit, so numbers become
visible in their order: a reader that asks for `seq > last` can never miss a row that was committed late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import case, func, select, text, true, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session

from catalog.errors import CatalogError, ModelNotFound, NotIndexed
from catalog.repository import names, spaces
from catalog.repository.access import PUBLIC_VECTORS, visible
from catalog.spaces import PREFERRED, Space
from catalog.tables import BaseActivations, Model, Revision, SpaceRow, Vector, change_seq
from catalog.viewers import PUBLIC, Viewer

_FEED_LOCK = 0x64656C7461  # "delta"


@dataclass(frozen=True)
class Change:
    """One entry of the feed. `vector` is float32 (d,), or None when the model left the space."""

    seq: int
    space_id: int
    model_id: int
    vector: np.ndarray | None


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


def lock_feed(session: Session) -> None:
    """Wait for the turn to write to the feed; held until the transaction ends."""
    session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _FEED_LOCK})


def store(
    session: Session,
    space: SpaceRow,
    revision: Revision,
    vector: np.ndarray,
    *,
    norm: float,
    no_shift: bool,
    explanation: dict | None = None,
) -> int:
    """Write a revision's vector and append it to the feed. The caller holds `lock_feed`. Returns the seq."""
    values: dict[str, Any] = {
        "model_id": revision.model_id,
        "dimension": vector.size,
        "data": vector.astype("<f4").tobytes(),
        "norm": norm,
        "no_shift": no_shift,
        "explanation": explanation,
        "deleted": False,
        "seq": session.execute(select(change_seq.next_value())).scalar_one(),
    }
    statement = insert(Vector).values(space_id=space.id, revision_id=revision.id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["space_id", "revision_id"], set_=values))
    return values["seq"]


def republish(session: Session, revision_id: int) -> None:
    """Append a revision's vectors to the feed once more, so that they replace what is indexed of the model."""
    lock_feed(session)
    homes = select(SpaceRow.id).where(spaces.is_home())
    statement = update(Vector).where(Vector.revision_id == revision_id, Vector.space_id.in_(homes))
    session.execute(statement.values(seq=change_seq.next_value(), deleted=False))


def remove(session: Session, model_id: int) -> None:
    """Turn all vectors of a model into tombstones of the feed."""
    lock_feed(session)
    session.execute(update(Vector).where(Vector.model_id == model_id).values(seq=change_seq.next_value(), deleted=True))


def retire(session: Session, model_id: int, base_repo: str) -> None:
    """Turn a model's vectors in the spaces of other bases into tombstones: it is a fine-tune of this one now. Those on
    another commit of the same base stay. The caller holds `lock_feed`.
    """
    elsewhere = select(SpaceRow.id).where(SpaceRow.base_repo != base_repo)
    statement = update(Vector).where(Vector.model_id == model_id, Vector.space_id.in_(elsewhere), ~Vector.deleted)
    session.execute(statement.values(seq=change_seq.next_value(), deleted=True))


def changes(session: Session, after: int, limit: int) -> list[Change]:
    """The next entries of the feed, at most `limit`, in the order of `seq`."""
    gone = Vector.deleted | Vector.no_shift
    statement = (
        select(Vector.seq, Vector.space_id, Vector.model_id, gone, Vector.data)
        .where(Vector.seq > after)
        .order_by(Vector.seq)
        .limit(limit)
    )
    return [
        Change(seq, space_id, model_id, None if is_gone else np.frombuffer(data, dtype="<f4"))
        for seq, space_id, model_id, is_gone, data in session.execute(statement)
    ]


_CHANGES_OF = """
    SELECT vectors.seq, vectors.space_id, vectors.model_id,
        CASE WHEN deleted OR no_shift THEN NULL ELSE data END AS data
    FROM unnest(cast(:spaces AS bigint[]), cast(:positions AS bigint[])) AS place (space_id, seq)
    JOIN vectors ON vectors.space_id = place.space_id AND vectors.seq > place.seq
    {where}
    ORDER BY vectors.seq LIMIT :limit
"""
_OF_ALL, _OF_PUBLIC = text(_CHANGES_OF.format(where="")), text(_CHANGES_OF.format(where=f"WHERE {PUBLIC_VECTORS}"))


def changes_of(session: Session, positions: Mapping[int, int], limit: int, *, public: bool = False) -> list[Change]:
    """The next entries of some spaces (by id), of each those after its own position, in the order of `seq`; with
    `public` those of public models alone.
    """
    if not positions:
        return []
    places = {"spaces": list(positions), "positions": list(positions.values()), "limit": limit}
    return [
        Change(seq, space_id, model_id, None if data is None else np.frombuffer(data, dtype="<f4"))
        for seq, space_id, model_id, data in session.execute(_OF_PUBLIC if public else _OF_ALL, places)
    ]


@dataclass(frozen=True)
class Touched:
    """A model whose newest vector in a space is the change `seq`, or which left the space with it."""

    model_id: int
    seq: int
    gone: bool


_TOUCHED = text(f"""
    SELECT DISTINCT ON (model_id) model_id, seq, deleted OR no_shift
    FROM vectors WHERE space_id = :space_id AND seq > :after AND {PUBLIC_VECTORS} ORDER BY model_id, seq DESC
""")


def touched(session: Session, space_id: int, after: int) -> list[Touched]:
    """The public models of a space that changed after a place of the feed, each once."""
    return [Touched(*row) for row in session.execute(_TOUCHED, {"space_id": space_id, "after": after})]


def last_seq(session: Session) -> int:
    return session.execute(select(func.coalesce(func.max(Vector.seq), 0))).scalar_one()


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
    wanted = spaces.named(space_key) if space_key else SpaceRow.feature.in_(features)
    preferred = case({name: place for place, name in enumerate(features)}, value=SpaceRow.feature)
    # of the revision: the newest one counts alone
    latest = func.max(Vector.seq).over(partition_by=(Vector.revision_id, SpaceRow.serving))
    ranks = (SpaceRow.serving, preferred.label("preference"), latest.label("latest"))
    vectors = (
        select(Vector.id, Vector.seq, *ranks)
        .select_from(Vector)
        .join(SpaceRow, SpaceRow.id == Vector.space_id)
        .where(wanted, ~Vector.deleted, Vector.model_id == Model.id)
        .correlate(Model)
        .lateral()
    )
    own_base = (
        (BaseActivations.space_id == Vector.space_id)
        & (BaseActivations.base_repo == Revision.base_repo)
        & (BaseActivations.base_sha == Revision.base_sha)
    )
    statement = (
        select(Model, Vector, SpaceRow, Revision, BaseActivations.noise_floor)
        .ext(distinct_on(Model.id))
        .select_from(Model)
        .outerjoin(vectors, true())
        .outerjoin(Vector, Vector.id == vectors.c.id)
        .outerjoin(SpaceRow, SpaceRow.id == Vector.space_id)
        .outerjoin(Revision, Revision.id == Vector.revision_id)
        .outerjoin(BaseActivations, own_base)
        .where(Model.repo_id.in_(repo_ids), visible(viewer))
        .order_by(
            Model.id,
            vectors.c.serving.desc(),
            vectors.c.latest.desc(),
            vectors.c.preference,
            vectors.c.seq.desc(),
        )
    )
    found: dict[str, Stored | CatalogError] = {repo_id: _unknown(repo_id) for repo_id in repo_ids}
    where = f"in space {space_key}" if space_key else f"for {' or '.join(features)}"
    missing = False
    for model, vector, space, revision, noise_floor in session.execute(statement):
        if vector is None:
            missing = True
            found[model.repo_id] = NotIndexed(
                f"{model.repo_id} has no vector {where} yet (it is {model.state}). Look at its job for the reason."
            )
            continue
        values = np.frombuffer(vector.data, dtype="<f4")
        found[model.repo_id] = Stored(
            model, revision, space, values, vector.norm, vector.no_shift, vector.explanation, noise_floor
        )
    if missing and space_key:
        spaces.get(session, space_key, viewer)  # raises where the space itself is unknown
    unknown = [repo_id for repo_id, each in found.items() if isinstance(each, ModelNotFound)]
    renamed = names.current(session, unknown) if unknown else {}
    if renamed:
        now = newest_of(session, list(renamed.values()), features=features, space_key=space_key, viewer=viewer)
        found |= {former: now[repo_id] for former, repo_id in renamed.items()}
    return found


def in_spaces(session: Session, model: Model) -> list[Stored]:
    """A model's vectors in every space that its current revision has."""
    own_base = (
        (BaseActivations.space_id == Vector.space_id)
        & (BaseActivations.base_repo == Revision.base_repo)
        & (BaseActivations.base_sha == Revision.base_sha)
    )
    statement = (
        select(Revision, SpaceRow, Vector, BaseActivations.noise_floor)
        .join(Vector, Vector.revision_id == Revision.id)
        .join(SpaceRow, SpaceRow.id == Vector.space_id)
        .outerjoin(BaseActivations, own_base)
        .where(Revision.model_id == model.id, Revision.current, ~Vector.deleted)
    )
    return [
        Stored(
            model, revision, space, np.frombuffer(each.data, "<f4"), each.norm, each.no_shift, each.explanation, floor
        )
        for revision, space, each, floor in session.execute(statement)
    ]


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
    own_base = (
        (BaseActivations.space_id == Vector.space_id)
        & (BaseActivations.base_repo == Revision.base_repo)
        & (BaseActivations.base_sha == Revision.base_sha)
    )
    statement = (
        select(SpaceRow, Vector.norm, BaseActivations.noise_floor, Vector.no_shift, Vector.explanation)
        .join(Vector, Vector.space_id == SpaceRow.id)
        .join(Revision, Revision.id == Vector.revision_id)
        .join(BaseActivations, own_base)
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
