"""SQL of spaces, and of the base activations measured in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from sqlalchemy import ColumnElement, case, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import aggregate_order_by, distinct_on, insert
from sqlalchemy.orm import Session, aliased

from catalog.auth.repository.access import visible_spaces
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.errors import SpaceNotFound
from catalog.spaces.contract import PREFERRED_FEATURES, Space, features_named, preference_rank
from catalog.tables import BaseActivations, BaseProof, ClusterRun, SpaceRow


@dataclass(frozen=True)
class BaseMeasurement:
    """The activations of a base model for each probe, float32 (N, d), and its noise floor in the space (a norm)."""

    activations: np.ndarray
    noise_floor: float


def ensure(session: Session, space: Space, dimension: int, *, may_serve: bool = True) -> SpaceRow:
    """Get the row of a space, or create it.

    The first space of a base and feature serves at once if it `may_serve`. A later one, and one that a reindex
    measures, serves only after a cutover.
    """
    statement = select(SpaceRow).where(SpaceRow.key == space.key)
    row = session.scalars(statement).one_or_none()
    while row is None:
        is_first = may_serve and not space.edition and find_serving(session, space) is None
        insertion = insert(SpaceRow).values(key=space.key, dimension=dimension, serving=is_first, **asdict(space))
        session.execute(insertion.on_conflict_do_nothing())  # another transaction may just have created the serving one
        row = session.scalars(statement).one_or_none()
    return row


_CONTRACT_FIELDS = ("feature", "layer", "base_repo", "base_sha", "probe_set", "dtype", "encoder_version")


def to_space(row: SpaceRow) -> Space:
    """The contract and edition of a stored space."""
    return Space(**{name: getattr(row, name) for name in (*_CONTRACT_FIELDS, "edition")})


def list_editions(session: Session, space: Space) -> list[SpaceRow]:
    """All editions of the space's contract: the serving one first, then the newest."""
    same_contract = [getattr(SpaceRow, name).is_not_distinct_from(getattr(space, name)) for name in _CONTRACT_FIELDS]
    statement = select(SpaceRow).where(*same_contract).order_by(SpaceRow.serving.desc(), SpaceRow.id.desc())
    return list(session.scalars(statement))


def get_write_target(session: Session, space: Space, dimension: int, *, may_serve: bool = True) -> SpaceRow:
    """The space that jobs outside a reindex store their vectors in: the serving edition of the contract, or else
    edition 0, which is created if it is missing (`ensure`).
    """
    rows = list_editions(session, space)
    if rows and rows[0].serving:
        return rows[0]
    return ensure(session, replace(space, edition=0), dimension, may_serve=may_serve)


def is_write_target() -> ColumnElement[bool]:
    """Condition on `SpaceRow`: it is the write target of its contract."""
    other = aliased(SpaceRow)
    same_contract = [getattr(other, name).is_not_distinct_from(getattr(SpaceRow, name)) for name in _CONTRACT_FIELDS]
    serving_edition = select(other.id).where(other.serving, *same_contract)
    return SpaceRow.serving | ((SpaceRow.edition == 0) & ~serving_edition.exists())


def find_serving(session: Session, space: Space | SpaceRow) -> SpaceRow | None:
    """The serving space of the same base and feature."""
    same_base = func.coalesce(SpaceRow.base_repo, "") == (space.base_repo or "")
    statement = select(SpaceRow).where(SpaceRow.serving, SpaceRow.feature == space.feature, same_base)
    return session.scalars(statement).one_or_none()


def list_bases(session: Session, repo: str | None, viewer: Viewer) -> list[tuple[str, str]]:
    """The repo and pinned commit of each base that has a serving space, or only of `repo`.

    The base with the smallest dimension, which is the cheapest to run, comes first. Raises `SpaceNotFound` if there is
    none.
    """
    eligible = SpaceRow.serving & SpaceRow.feature.in_(PREFERRED_FEATURES) & SpaceRow.base_repo.is_not(None)
    commits = func.array_agg(aggregate_order_by(SpaceRow.base_sha, preference, SpaceRow.id.desc()))
    statement = select(SpaceRow.base_repo, commits, func.min(SpaceRow.dimension)).where(
        eligible, visible_spaces(viewer)
    )
    if repo is not None:
        statement = statement.where(SpaceRow.base_repo == repo)
    rows = session.execute(statement.group_by(SpaceRow.base_repo).order_by(text("3"), text("1")))
    bases = [(base, shas[0]) for base, shas, _ in rows if base and shas[0]]
    if not bases:
        of_repo = f" of {repo}" if repo is not None else ""
        raise SpaceNotFound(
            f"No fine-tune{of_repo} is indexed yet. Submit some with POST /v1/models or `deltadex add`."
        )
    return bases


def set_unrelated_similarity(session: Session, space_id: int, cosine: float | None) -> None:
    """Store how near unrelated models of the space are to each other; None if that is not known."""
    session.execute(update(SpaceRow).where(SpaceRow.id == space_id).values(unrelated_similarity=cosine))


def matches_name(name: str) -> ColumnElement[bool]:
    """Condition on `SpaceRow`: the name is its key, or its feature with or without `delta_`."""
    features = features_named(name)
    return SpaceRow.feature.in_(features) if features else SpaceRow.key == name


def find_by_name(session: Session, name: str, viewer: Viewer = PUBLIC) -> list[SpaceRow]:
    """The spaces of that name in which the viewer sees a model, serving ones first, then the newest.

    Raises `SpaceNotFound` if there is none.
    """
    statement = select(SpaceRow).where(matches_name(name), visible_spaces(viewer))
    rows = list(session.scalars(statement.order_by(SpaceRow.serving.desc(), SpaceRow.id.desc())))
    if not rows:
        raise SpaceNotFound(f"There is no space {name}. GET /v1/spaces lists all spaces with their keys and features.")
    return rows


def get(session: Session, name: str, viewer: Viewer = PUBLIC) -> SpaceRow:
    """The first space of `find_by_name`. Raises `SpaceNotFound`."""
    return find_by_name(session, name, viewer)[0]


def pinned_commit(session: Session, base_repo: str) -> str | None:
    """The commit of a base that its serving spaces were measured on, if it has any."""
    statement = select(SpaceRow.base_sha).where(SpaceRow.serving, SpaceRow.base_repo == base_repo)
    return session.execute(statement.order_by(preference, SpaceRow.id.desc()).limit(1)).scalar_one_or_none()


_WITH_WEIGHTS = text("""
    SELECT spaces.base_repo FROM spaces CROSS JOIN LATERAL (
        SELECT base_evidence FROM revisions
        WHERE current AND base_repo = spaces.base_repo AND base_sha = spaces.base_sha AND base_evidence ? 'weights'
        ORDER BY model_id DESC LIMIT 1
    ) AS newest
    WHERE spaces.serving AND newest.base_evidence ->> 'weights' = :weights
    ORDER BY spaces.id LIMIT 1
""")


def find_base_by_weights(session: Session, weights: str) -> str | None:
    """The base of a serving space whose weights have this hash, as the evidence of its models says."""
    return session.execute(_WITH_WEIGHTS, {"weights": weights}).scalar_one_or_none()


# `preference_rank` of a space's feature, to order statements by
preference = case({name: preference_rank(name) for name in PREFERRED_FEATURES}, value=SpaceRow.feature)


def get_default(session: Session) -> SpaceRow:
    """The newest serving space of the most preferred feature, among those with a public model.

    Raises `SpaceNotFound`.
    """
    features = SpaceRow.feature.in_(PREFERRED_FEATURES)
    statement = select(SpaceRow).where(SpaceRow.serving, features, visible_spaces(PUBLIC))
    row = session.scalars(statement.order_by(preference, SpaceRow.id.desc()).limit(1)).one_or_none()
    if row is None:
        raise SpaceNotFound(f"There is no space of {PREFERRED_FEATURES[0]} yet. The first model added creates it.")
    return row


def list_filter_runs(session: Session) -> list[int]:
    """The cluster runs that searches filter by, oldest first: for each base, the current run of the space that
    `get_default` would choose among those of the base.
    """
    default_spaces = (
        select(SpaceRow.id)
        .ext(distinct_on(SpaceRow.base_repo))
        .where(SpaceRow.serving, SpaceRow.feature.in_(PREFERRED_FEATURES))
        .order_by(SpaceRow.base_repo, preference, SpaceRow.id.desc())
    )
    statement = select(ClusterRun.id).where(ClusterRun.current, ClusterRun.space_id.in_(default_spaces))
    return list(session.scalars(statement.order_by(ClusterRun.id)))


def list_visible(session: Session, viewer: Viewer = PUBLIC) -> list[SpaceRow]:
    """The spaces in which the viewer sees a model, newest first."""
    return list(session.scalars(select(SpaceRow).where(visible_spaces(viewer)).order_by(SpaceRow.id.desc())))


def find_base_measurement(session: Session, space: Space, base_repo: str, base_sha: str) -> BaseMeasurement | None:
    """The stored measurement of a base in a space, if there is one."""
    row = session.scalars(
        select(BaseActivations)
        .join(SpaceRow, SpaceRow.id == BaseActivations.space_id)
        .where(SpaceRow.key == space.key, BaseActivations.base_repo == base_repo, BaseActivations.base_sha == base_sha)
    ).one_or_none()
    if row is None:
        return None
    activations = np.frombuffer(row.data, dtype="<f4").reshape(row.probes, row.dimension)
    return BaseMeasurement(activations, row.noise_floor)


def store_base_measurement(
    session: Session,
    space: Space,
    base_repo: str,
    base_sha: str,
    measurement: BaseMeasurement,
    *,
    may_serve: bool = True,
) -> None:
    """Store the measurement of a base in a space, which is created if it is missing (`ensure`). A measurement that is
    already stored stays.
    """
    probes, dimension = measurement.activations.shape
    row = ensure(session, space, dimension, may_serve=may_serve)
    statement = insert(BaseActivations).values(
        space_id=row.id,
        base_repo=base_repo,
        base_sha=base_sha,
        noise_floor=measurement.noise_floor,
        probes=probes,
        dimension=dimension,
        data=measurement.activations.astype("<f4").tobytes(),
    )
    session.execute(statement.on_conflict_do_nothing())


_COPY_BASE_ACTIVATIONS = text("""
    INSERT INTO base_activations (space_id, base_repo, base_sha, noise_floor, probes, dimension, data)
    SELECT :target, base_repo, base_sha, noise_floor, probes, dimension, data FROM base_activations
    WHERE space_id = (SELECT id FROM spaces WHERE key = :source) AND base_repo = :base_repo AND base_sha = :base_sha
        AND NOT EXISTS (SELECT 1 FROM base_activations WHERE space_id = :target AND base_repo = :base_repo
            AND base_sha = :base_sha)
    ON CONFLICT DO NOTHING
""")


def copy_base_measurement(session: Session, space: Space, target: SpaceRow, base_repo: str, base_sha: str) -> None:
    """Copy the measurement of a base to another edition of the space."""
    if target.key != space.key:
        parameters = {"target": target.id, "source": space.key, "base_repo": base_repo, "base_sha": base_sha}
        session.execute(_COPY_BASE_ACTIVATIONS, parameters)


def max_noise_floor(session: Session, space_id: int) -> float | None:
    """The largest noise floor of any base in the space, if one was measured."""
    statement = select(func.max(BaseActivations.noise_floor)).where(BaseActivations.space_id == space_id)
    return session.execute(statement).scalar_one()


def store_proof(session: Session, proof: BaseProof) -> None:
    """Store the proof of a base, in place of an earlier one that says something else."""
    key = {"base_repo": proof.base_repo, "base_sha": proof.base_sha, "dtype": proof.dtype}
    values = {"path": proof.path, "error": proof.error, "reason": proof.reason, "kinds": proof.kinds}
    statement = insert(BaseProof).values(**key, **values)
    excluded = [statement.excluded[name] for name in values]
    changed = or_(*(getattr(BaseProof, name).is_distinct_from(new) for name, new in zip(values, excluded, strict=True)))
    session.execute(
        statement.on_conflict_do_update(
            index_elements=list(key),
            set_={**dict(zip(values, excluded, strict=True)), "updated_at": func.now()},
            where=changed,
        )
    )


def find_proof(session: Session, base_repo: str, base_sha: str) -> BaseProof | None:
    """The newest proof of a base, if one was stored."""
    statement = select(BaseProof).where(BaseProof.base_repo == base_repo, BaseProof.base_sha == base_sha)
    return session.scalars(statement.order_by(BaseProof.updated_at.desc()).limit(1)).one_or_none()


def count_proofs_by_path(session: Session) -> dict[str, int]:
    """The number of bases that run on each path, by the newest proof of each."""
    key = (BaseProof.base_repo, BaseProof.base_sha)
    newest = select(BaseProof.path).ext(distinct_on(*key)).order_by(*key, BaseProof.updated_at.desc()).subquery()
    rows = session.execute(select(newest.c.path, func.count()).group_by(newest.c.path))
    return {path: count for path, count in rows}
