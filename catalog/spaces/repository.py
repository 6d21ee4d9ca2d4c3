"""Spaces and the base activations measured in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from sqlalchemy import ColumnElement, case, func, select, text
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.orm import Session, aliased

from catalog.auth.repository import space_visible
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.errors import SpaceNotFound
from catalog.spaces.contract import PREFERRED, Space, features_named, preference_rank
from catalog.tables import BaseActivations, SpaceRow


@dataclass(frozen=True)
class BaseTable:
    """A base's own features for each probe, float32 (N, d), and the space's noise floor for it (a norm)."""

    activations: np.ndarray
    noise_floor: float


def ensure(session: Session, space: Space, dimension: int) -> SpaceRow:
    """The row of that contract, made if there is none. The first of a base and feature serves at once; one that a
    reindex measures, and one that comes after the first, does not until a reindex switches.
    """
    known = select(SpaceRow).where(SpaceRow.key == space.key)
    row = session.scalars(known).one_or_none()
    while row is None:
        first = not space.edition and serving(session, space) is None
        made = insert(SpaceRow).values(key=space.key, dimension=dimension, serving=first, **asdict(space))
        session.execute(made.on_conflict_do_nothing())  # another may have come to serve just now
        row = session.scalars(known).one_or_none()
    return row


_CONTRACT = ("feature", "layer", "base_repo", "base_sha", "probe_set", "dtype", "encoder_version")


def contract_of(row: SpaceRow) -> Space:
    return Space(**{name: getattr(row, name) for name in (*_CONTRACT, "edition")})


def editions(session: Session, space: Space) -> list[SpaceRow]:
    """The spaces of that contract, whatever their edition: the serving one first, then the newest."""
    same = [getattr(SpaceRow, name).is_not_distinct_from(getattr(space, name)) for name in _CONTRACT]
    return list(session.scalars(select(SpaceRow).where(*same).order_by(SpaceRow.serving.desc(), SpaceRow.id.desc())))


def home(session: Session, space: Space, dimension: int) -> SpaceRow:
    """Where what is measured under a contract is stored, for jobs that are of no reindex: the edition that serves,
    and where none of it does the first, made if there is none.
    """
    found = editions(session, space)
    return found[0] if found and found[0].serving else ensure(session, replace(space, edition=0), dimension)


def is_home() -> ColumnElement[bool]:
    """`home` as a condition on a `SpaceRow`."""
    other = aliased(SpaceRow)
    same = [getattr(other, name).is_not_distinct_from(getattr(SpaceRow, name)) for name in _CONTRACT]
    return SpaceRow.serving | ((SpaceRow.edition == 0) & ~select(other.id).where(other.serving, *same).exists())


def serving(session: Session, space: Space | SpaceRow) -> SpaceRow | None:
    """The space that serves for the base and feature of another."""
    same = (SpaceRow.feature == space.feature, func.coalesce(SpaceRow.base_repo, "") == (space.base_repo or ""))
    return session.scalars(select(SpaceRow).where(SpaceRow.serving, *same)).one_or_none()


def bases(session: Session, repo: str | None, viewer: Viewer) -> list[tuple[str, str]]:
    """Repo and commit of the bases on which serving spaces were measured, or of the one that is named; the narrowest,
    which cost the least, first. Of several commits of a base that which `pinned` takes. Raises `SpaceNotFound` where
    there is none.
    """
    known = SpaceRow.serving & SpaceRow.feature.in_(PREFERRED) & SpaceRow.base_repo.is_not(None)
    commits = func.array_agg(aggregate_order_by(SpaceRow.base_sha, preference, SpaceRow.id.desc()))
    statement = select(SpaceRow.base_repo, commits, func.min(SpaceRow.dimension)).where(known, space_visible(viewer))
    if repo is not None:
        statement = statement.where(SpaceRow.base_repo == repo)
    rows = session.execute(statement.group_by(SpaceRow.base_repo).order_by(text("3"), text("1")))
    found = [(base, shas[0]) for base, shas, _ in rows if base and shas[0]]
    if not found:
        of_it = f" of {repo}" if repo is not None else ""
        raise SpaceNotFound(
            f"No fine-tune{of_it} is indexed here, so there is nothing to compare with. Add some first."
        )
    return found


def named(name: str) -> ColumnElement[bool]:
    """The one place that says what a space is called: its key, or its feature with or without `delta_` (`meaning`),
    which all spaces of that feature share. A condition on `SpaceRow`.
    """
    features = features_named(name)
    return SpaceRow.feature.in_(features) if features else SpaceRow.key == name


def of_name(session: Session, name: str, viewer: Viewer = PUBLIC) -> list[SpaceRow]:
    """The spaces of that name in which the viewer sees a model: those that serve first, of these the newest; at least
    one. Raises `SpaceNotFound`.
    """
    known = select(SpaceRow).where(named(name), space_visible(viewer))
    rows = list(session.scalars(known.order_by(SpaceRow.serving.desc(), SpaceRow.id.desc())))
    if not rows:
        raise SpaceNotFound(f"There is no space {name}. GET /v1/spaces lists them, with their keys and features.")
    return rows


def get(session: Session, name: str, viewer: Viewer = PUBLIC) -> SpaceRow:
    """The first space `of_name`. Raises `SpaceNotFound`."""
    return of_name(session, name, viewer)[0]


def pinned(session: Session, base_repo: str) -> str | None:
    """The commit of a base that its serving spaces were measured on."""
    statement = select(SpaceRow.base_sha).where(SpaceRow.serving, SpaceRow.base_repo == base_repo)
    return session.execute(statement.order_by(preference, SpaceRow.id.desc()).limit(1)).scalar_one_or_none()


# the place of a space's feature among the preferred ones, from 0; a condition and an order of statements
preference = case({name: preference_rank(name) for name in PREFERRED}, value=SpaceRow.feature)


def newest(session: Session) -> SpaceRow:
    """The newest serving space of the most preferred feature that holds a public model; raises `SpaceNotFound`."""
    preferred = select(SpaceRow).where(SpaceRow.serving, SpaceRow.feature.in_(PREFERRED), space_visible(PUBLIC))
    statement = preferred.order_by(preference, SpaceRow.id.desc())
    row = session.scalars(statement.limit(1)).one_or_none()
    if row is None:
        raise SpaceNotFound(f"There is no space of {PREFERRED[0]} yet: the first model that is embedded makes it.")
    return row


def leads(session: Session, space: SpaceRow) -> bool:
    """Whether a space is the one that `newest` would choose among those of its base."""
    statement = select(SpaceRow.id).where(
        SpaceRow.serving, SpaceRow.feature.in_(PREFERRED), SpaceRow.base_repo == space.base_repo
    )
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


_COPY_TABLE = text("""
    INSERT INTO base_activations (space_id, base_repo, base_sha, noise_floor, probes, dimension, data)
    SELECT :target, base_repo, base_sha, noise_floor, probes, dimension, data FROM base_activations
    WHERE space_id = (SELECT id FROM spaces WHERE key = :source) AND base_repo = :base_repo AND base_sha = :base_sha
        AND NOT EXISTS (SELECT 1 FROM base_activations WHERE space_id = :target AND base_repo = :base_repo
            AND base_sha = :base_sha)
    ON CONFLICT DO NOTHING
""")


def share_base_table(session: Session, space: Space, target: SpaceRow, base_repo: str, base_sha: str) -> None:
    """Have another edition of a space hold what was measured of that base, too."""
    if target.key != space.key:
        values = {"target": target.id, "source": space.key, "base_repo": base_repo, "base_sha": base_sha}
        session.execute(_COPY_TABLE, values)


def noise_floor(session: Session, space_id: int) -> float | None:
    """The greatest noise floor that was measured of a base in the space; None where none was."""
    statement = select(func.max(BaseActivations.noise_floor)).where(BaseActivations.space_id == space_id)
    return session.execute(statement).scalar_one()
