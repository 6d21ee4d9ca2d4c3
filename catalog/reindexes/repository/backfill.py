"""Vectors that go from one space to another of its contract, and what it takes to have another space serve.

The caller holds `vectors.lock_feed` wherever something is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from catalog.spaces import repository as spaces
from catalog.tables import SpaceRow, Vector

NAMED = 20  # models that are named as lost


@dataclass(frozen=True)
class Pair:
    """A space, and the one that is to serve in its place. None: there was or there will be none."""

    old: SpaceRow | None
    new: SpaceRow | None


def pairs(session: Session, reindex_id: int) -> list[Pair]:
    """The spaces that a reindex measured, each with the one that serves in its place now."""
    statement = select(SpaceRow).where(SpaceRow.edition == reindex_id, SpaceRow.edition != 0).order_by(SpaceRow.id)
    return [Pair(spaces.serving(session, row), row) for row in session.scalars(statement)]


# of a page of a space's changes, the current revisions that the other space lacks; not of models whose base is another
_CARRY = text("""
    WITH page AS MATERIALIZED (
        SELECT * FROM vectors WHERE space_id = :source AND seq > :after ORDER BY seq LIMIT :limit
    ), copied AS (
        INSERT INTO vectors (space_id, model_id, revision_id, seq, dimension, data, norm, no_shift, explanation)
        SELECT :target, page.model_id, page.revision_id, nextval('change_seq'), dimension, data, norm, no_shift,
            explanation
        FROM page CROSS JOIN LATERAL (
            SELECT id FROM revisions WHERE id = page.revision_id AND current LIMIT 1
        ) AS revisions
        WHERE NOT page.deleted AND NOT EXISTS (
            SELECT 1 FROM reindex_moves AS moved WHERE moved.reindex_id = :reindex_id
                AND moved.revision_id = revisions.id AND moved.base_repo <> coalesce(:base_repo, moved.base_repo)
        )
        ON CONFLICT (space_id, revision_id) DO UPDATE SET seq = excluded.seq, deleted = false WHERE vectors.deleted
        RETURNING 1
    )
    SELECT (SELECT max(seq) FROM page), (SELECT count(*) FROM page), (SELECT count(*) FROM copied)
""")
_SHARE_TABLES = text("""
    INSERT INTO base_activations (space_id, base_repo, base_sha, noise_floor, probes, dimension, data)
    SELECT :target, base_repo, base_sha, noise_floor, probes, dimension, data FROM base_activations AS known
    WHERE space_id = :source AND NOT EXISTS (SELECT 1 FROM base_activations AS own WHERE own.space_id = :target
        AND own.base_repo = known.base_repo AND own.base_sha = known.base_sha)
    ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True)
class Carried:
    """How far a page of changes reached, whether there may be more, and how many vectors were copied."""

    seq: int
    more: bool
    copied: int


def carry(session: Session, source: SpaceRow, target: SpaceRow, reindex_id: int, *, after: int, limit: int) -> Carried:
    """Copy what came to a space after a place of the feed into another of its contract that lacks it; what was measured
    there stays.
    """
    places = {"source": source.id, "target": target.id, "base_repo": target.base_repo, "reindex_id": reindex_id}
    seq, seen, copied = session.execute(_CARRY, {**places, "after": after, "limit": limit}).one()
    if copied:
        session.execute(_SHARE_TABLES, {"source": source.id, "target": target.id})
    return Carried(seq or after, seen == limit, copied)


@dataclass(frozen=True)
class Lost:
    """Models that are in a space and would not be in the one that is to serve: how many, and the first by name."""

    count: int
    repo_ids: list[str]


_LOST = text("""
    SELECT count(*), coalesce((array_agg(repo_id ORDER BY repo_id COLLATE "C"))[1:cast(:named AS int)], '{}')
    FROM models WHERE id IN (
        SELECT had.model_id FROM vectors AS had WHERE had.space_id = :old AND NOT had.deleted
            AND NOT EXISTS (SELECT 1 FROM vectors AS has
                WHERE has.model_id = had.model_id AND has.space_id = :new AND NOT has.deleted)
            AND NOT EXISTS (SELECT 1 FROM reindex_moves AS moved JOIN revisions ON revisions.id = moved.revision_id
                WHERE moved.reindex_id = :reindex_id AND revisions.model_id = had.model_id)
    )
""")


def lost(session: Session, pair: Pair, reindex_id: int) -> Lost:
    """Not of models whose base is found to be another one: those go there. Looks at the whole space."""
    if pair.old is None:
        return Lost(0, [])
    places = {"old": pair.old.id, "new": pair.new.id if pair.new else 0, "reindex_id": reindex_id, "named": NAMED}
    return Lost(*session.execute(_LOST, places).one())


def serve(session: Session, pair: Pair) -> None:
    """Have the new space of a pair serve in place of the old one."""
    for row, serving in ((pair.old, False), (pair.new, True)):
        if row is not None:
            session.execute(update(SpaceRow).where(SpaceRow.id == row.id).values(serving=serving))


_SWAP = text("""
    WITH before AS (
        SELECT revisions.id, revisions.kind, revisions.base_repo, revisions.base_sha, revisions.base_evidence
        FROM reindex_moves AS moved JOIN revisions ON revisions.id = moved.revision_id WHERE reindex_id = :reindex_id
    ), after AS (
        UPDATE revisions SET kind = moved.kind, base_repo = moved.base_repo, base_sha = moved.base_sha,
            base_evidence = moved.base_evidence
        FROM reindex_moves AS moved WHERE moved.reindex_id = :reindex_id AND revisions.id = moved.revision_id
        RETURNING revisions.model_id
    ), announced AS (
        UPDATE models SET seq = nextval('change_seq') WHERE id IN (SELECT model_id FROM after)
    )
    UPDATE reindex_moves AS moved SET kind = before.kind, base_repo = before.base_repo,
        base_sha = before.base_sha, base_evidence = before.base_evidence
    FROM before WHERE moved.reindex_id = :reindex_id AND moved.revision_id = before.id
""")
_SETTLE = text("""
    UPDATE vectors SET seq = nextval('change_seq'), deleted = NOT vectors.deleted
    FROM reindex_moves AS moved
    JOIN revisions ON revisions.id = moved.revision_id AND revisions.current
    JOIN models ON models.id = revisions.model_id AND models.state <> 'removed'
    CROSS JOIN spaces
    WHERE moved.reindex_id = :reindex_id AND vectors.model_id = models.id AND vectors.space_id = spaces.id
        AND (spaces.id = ANY(:spaces) OR spaces.serving) AND spaces.base_repo IS NOT NULL
        AND moved.base_repo <> revisions.base_repo
        AND CASE WHEN spaces.base_repo = revisions.base_repo
            THEN vectors.deleted AND vectors.revision_id = revisions.id
            ELSE NOT vectors.deleted AND spaces.base_repo = moved.base_repo END
""")


def swap_bases(session: Session, reindex_id: int, space_ids: Sequence[int]) -> None:
    """Models whose base was found to be another one are fine-tunes of that one from here on, or of the former one
    again; in none of those spaces, and in none that serves, are they found under the other.
    """
    session.execute(_SWAP, {"reindex_id": reindex_id})
    session.execute(_SETTLE, {"reindex_id": reindex_id, "spaces": list(space_ids)})


_STATES = text("""
    UPDATE models SET state = told.state FROM (
        SELECT vectors.model_id, CASE WHEN bool_and(no_shift) THEN 'no_shift' ELSE 'indexed' END AS state
        FROM vectors JOIN revisions ON revisions.id = vectors.revision_id AND revisions.current
        WHERE vectors.space_id = ANY(:spaces) AND NOT vectors.deleted GROUP BY vectors.model_id
    ) AS told
    WHERE models.id = told.model_id AND models.state IN ('indexed', 'no_shift') AND models.state <> told.state
""")


def set_states(session: Session, space_ids: Sequence[int]) -> None:
    """Whether models move their base, as it was measured in those spaces."""
    session.execute(_STATES, {"spaces": list(space_ids)})


_DISCARD = text("""
    UPDATE vectors SET seq = nextval('change_seq'), deleted = true WHERE id = ANY(ARRAY(
        SELECT vectors.id FROM spaces JOIN LATERAL (
            SELECT id FROM vectors WHERE space_id = spaces.id AND NOT deleted ORDER BY seq LIMIT :limit
        ) AS vectors ON true
        WHERE spaces.edition = :reindex_id AND NOT spaces.serving AND spaces.edition <> 0 LIMIT :limit
    ))
""")


def discard(session: Session, reindex_id: int, limit: int) -> int:
    """Turn up to `limit` vectors that a reindex measured into tombstones. Returns how many."""
    return session.execute(_DISCARD, {"reindex_id": reindex_id, "limit": limit}).rowcount  # type: ignore[attr-defined]


_SAMPLE = text("""
    SELECT model_id FROM vectors WHERE space_id = :space_id AND NOT deleted AND NOT no_shift
    GROUP BY model_id ORDER BY hashint8extended(model_id, :seed), model_id LIMIT :limit
""")


def sample(session: Session, space_id: int, limit: int, seed: int) -> list[int]:
    """Some models of a space, the same for the same seed."""
    return list(session.execute(_SAMPLE, {"space_id": space_id, "limit": limit, "seed": seed}).scalars())


def at_least(session: Session, space_id: int, enough: int) -> bool:
    """Whether a space has so many vectors; counts no further."""
    those = select(Vector.id).where(Vector.space_id == space_id, ~Vector.deleted)
    some = those.order_by(Vector.seq).limit(enough).subquery()  # in the order of an index, so that it is used
    return session.execute(select(func.count()).select_from(some)).scalar_one() >= enough
