"""Spaces and the base activations measured in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.errors import SpaceNotFound
from catalog.repository.access import space_visible
from catalog.spaces import PREFERRED, Space
from catalog.tables import BaseActivations, SpaceRow
from catalog.viewers import PUBLIC, Viewer


@dataclass(frozen=True)
class BaseTable:
    """A base's own features for each probe, float32 (N, d), and the space's noise floor for it (a norm)."""

    activations: np.ndarray
    noise_floor: float


def ensure(session: Session, space: Space, dimension: int) -> SpaceRow:
    """The row of that contract, made if there is none."""
    statement = insert(SpaceRow).values(key=space.key, dimension=dimension, **asdict(space))
    session.execute(statement.on_conflict_do_nothing(index_elements=["key"]))
    return session.scalars(select(SpaceRow).where(SpaceRow.key == space.key)).one()


def get(session: Session, key: str, viewer: Viewer = PUBLIC) -> SpaceRow:
    """A space in which the viewer sees a model. Raises `SpaceNotFound`."""
    row = session.scalars(select(SpaceRow).where(SpaceRow.key == key, space_visible(viewer))).one_or_none()
    if row is None:
        raise SpaceNotFound(f"There is no space {key}. GET /v1/spaces lists them.")
    return row


# the place of a space's feature among the preferred ones, from 0; a condition and an order of statements
preference = case({name: place for place, name in enumerate(PREFERRED)}, value=SpaceRow.feature)


def newest(session: Session) -> SpaceRow:
    """The newest space of the most preferred feature that holds a public model; raises `SpaceNotFound`."""
    preferred = select(SpaceRow).where(SpaceRow.feature.in_(PREFERRED), space_visible(PUBLIC))
    statement = preferred.order_by(preference, SpaceRow.id.desc())
    row = session.scalars(statement.limit(1)).one_or_none()
    if row is None:
        raise SpaceNotFound(f"There is no space of {PREFERRED[0]} yet: the first model that is embedded makes it.")
    return row


def leads(session: Session, space: SpaceRow) -> bool:
    """Whether a space is the one that `newest` would choose among those of its base."""
    statement = select(SpaceRow.id).where(SpaceRow.feature.in_(PREFERRED), SpaceRow.base_repo == space.base_repo)
    return session.scalars(statement.order_by(preference, SpaceRow.id.desc()).limit(1)).one_or_none() == space.id


def page(session: Session, viewer: Viewer = PUBLIC) -> list[SpaceRow]:
    """The spaces in which the viewer sees a model, the newest first."""
    return list(session.scalars(select(SpaceRow).where(space_visible(viewer)).order_by(SpaceRow.id.desc())))


def base_table(session: Session, space: Space, base_repo: str, base_sha: str) -> BaseTable | None:
    """What was stored for that base in that space, or None."""
    row = session.scalars(
        select(BaseActivations)
        .join(SpaceRow, SpaceRow.id == BaseActivations.space_id)
        .where(SpaceRow.key == space.key, BaseActivations.base_repo == base_repo, BaseActivations.base_sha == base_sha)
    ).one_or_none()
    if row is None:
        return None
    activations = np.frombuffer(row.data, dtype="<f4").reshape(row.probes, row.dimension)
    return BaseTable(activations, row.noise_floor)


def store_base_table(session: Session, space: Space, base_repo: str, base_sha: str, table: BaseTable) -> None:
    """Keep the base's activations; the first to be stored stay."""
    probes, dimension = table.activations.shape
    row = ensure(session, space, dimension)
    statement = insert(BaseActivations).values(
        space_id=row.id,
        base_repo=base_repo,
        base_sha=base_sha,
        noise_floor=table.noise_floor,
        probes=probes,
        dimension=dimension,
        data=table.activations.astype("<f4").tobytes(),
    )
    session.execute(statement.on_conflict_do_nothing())


def noise_floor(session: Session, space_id: int) -> float | None:
    """The greatest noise floor that was measured of a base in the space; None where none was."""
    statement = select(func.max(BaseActivations.noise_floor)).where(BaseActivations.space_id == space_id)
    return session.execute(statement).scalar_one()
