"""SQL of a reindex's spaces: the backfill, the cutover and the discarding.

The caller of every function that writes holds `feed.lock_feed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from catalog.spaces import repository as spaces
from catalog.tables import SpaceRow, Vector

MAX_NAMED = 20  # lost models that are listed


@dataclass(frozen=True)
class SpacePair:
    """A serving space, and the one that replaces it. Either may be missing."""

    old: SpaceRow | None
    new: SpaceRow | None


def list_space_pairs(session: Session, reindex_id: int) -> list[SpacePair]:
    """The new spaces of a reindex, each with the serving space that it replaces."""
    statement = select(SpaceRow).where(SpaceRow.edition == reindex_id, SpaceRow.edition != 0).order_by(SpaceRow.id)
    return [SpacePair(spaces.find_serving(session, row), row) for row in session.scalars(statement)]


# from a page of the source's changes, copies the vectors of current revisions that the target lacks, except of models
# for which the reindex found another base; a vector that is there precedes no vector of another revision any more
_BACKFILL = text("""
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
                AND moved.revision_id = revisions.id AND (moved.base_repo, moved.base_sha)
                    <> (coalesce(:base_repo, moved.base_repo), coalesce(:base_sha, moved.base_sha))
        )
        ON CONFLICT (space_id, revision_id) DO UPDATE SET seq = excluded.seq, deleted = false
            WHERE vectors.deleted OR EXISTS (SELECT 1 FROM vectors AS newer WHERE newer.model_id = vectors.model_id
                AND newer.space_id = vectors.space_id AND newer.seq > vectors.seq)
        RETURNING 1
    )
    SELECT (SELECT max(seq) FROM page), (SELECT count(*) FROM page), (SELECT count(*) FROM copied)
""")
_COPY_BASE_ACTIVATIONS = text("""
    INSERT INTO base_activations (space_id, base_repo, base_sha, noise_floor, probes, dimension, data)
    SELECT :target, base_repo, base_sha, noise_floor, probes, dimension, data FROM base_activations AS source
    WHERE space_id = :source AND NOT EXISTS (SELECT 1 FROM base_activations AS target
        WHERE target.space_id = :target AND target.base_repo = source.base_repo AND target.base_sha = source.base_sha)
    ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True)
class BackfillPage:
    """The last seq that a page read, whether there may be more, and how many vectors it copied."""

    seq: int
    more: bool
    copied: int


def copy_page(
    session: Session, source: SpaceRow, target: SpaceRow, reindex_id: int, *, after: int, limit: int
) -> BackfillPage:
    """Copy up to `limit` vectors with a seq above `after` to a space of the same contract that lacks them.

    Vectors that were measured in the target stay.
    """
    base = {"base_repo": target.base_repo, "base_sha": target.base_sha}
    parameters = {"source": source.id, "target": target.id, "reindex_id": reindex_id, **base}
    seq, seen, copied = session.execute(_BACKFILL, {**parameters, "after": after, "limit": limit}).one()
    if copied:
        session.execute(_COPY_BASE_ACTIVATIONS, {"source": source.id, "target": target.id})
    return BackfillPage(seq or after, seen == limit, copied)


@dataclass(frozen=True)
class LostModels:
    """The number of models that a serving space has and its replacement lacks, and the first of them by name."""

    count: int
    repo_ids: list[str]


_LOST = text("""
    SELECT count(*), coalesce((array_agg(repo_id ORDER BY repo_id COLLATE "C"))[1:cast(:named AS int)], '{}')
    FROM models WHERE id IN (
        SELECT old.model_id FROM vectors AS old WHERE old.space_id = :old AND NOT old.deleted
            AND NOT EXISTS (SELECT 1 FROM vectors AS new
                WHERE new.model_id = old.model_id AND new.space_id = :new AND NOT new.deleted)
            AND NOT EXISTS (SELECT 1 FROM reindex_moves AS moved JOIN revisions ON revisions.id = moved.revision_id
                WHERE moved.reindex_id = :reindex_id AND revisions.model_id = old.model_id)
    )
""")


def find_lost_models(session: Session, pair: SpacePair, reindex_id: int) -> LostModels:
    """The models that the cutover would take out of search. Reads the whole space.

    Models for which the reindex found another base are not lost: they move to the space of that base.
    """
    if pair.old is None:
        return LostModels(0, [])
    new_id = pair.new.id if pair.new else 0
    parameters = {"old": pair.old.id, "new": new_id, "reindex_id": reindex_id, "named": MAX_NAMED}
    return LostModels(*session.execute(_LOST, parameters).one())


def serve(session: Session, pair: SpacePair) -> None:
    """Make the new space of a pair serve in place of the old one."""
    for row, serving in ((pair.old, False), (pair.new, True)):
        if row is not None:
            session.execute(update(SpaceRow).where(SpaceRow.id == row.id).values(serving=serving))


_SWAP_BASES = text("""
    WITH before AS (
        SELECT revisions.id, revisions.kind, revisions.base_repo, revisions.base_sha, revisions.base_evidence
        FROM reindex_moves AS moved JOIN revisions ON revisions.id = moved.revision_id WHERE reindex_id = :reindex_id
    ), after AS (
        UPDATE revisions SET kind = moved.kind, base_repo = moved.base_repo, base_sha = moved.base_sha,
            base_evidence = moved.base_evidence
        FROM reindex_moves AS moved WHERE moved.reindex_id = :reindex_id AND revisions.id = moved.revision_id
        RETURNING revisions.model_id
    ), bumped AS (
        UPDATE models SET seq = nextval('change_seq') WHERE id IN (SELECT model_id FROM after)
    )
    UPDATE reindex_moves AS moved SET kind = before.kind, base_repo = before.base_repo,
        base_sha = before.base_sha, base_evidence = before.base_evidence
    FROM before WHERE moved.reindex_id = :reindex_id AND moved.revision_id = before.id
""")
_SWAP_VECTORS = text("""
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
    """Swap the bases in `reindex_moves` with those of the revisions: apply the moves of a reindex, or undo them.

    In these spaces and in all serving ones, the vectors of the moved models become tombstones under the former base,
    and live again under the new one. Tombstones and vectors get new seqs.
    """
    session.execute(_SWAP_BASES, {"reindex_id": reindex_id})
    session.execute(_SWAP_VECTORS, {"reindex_id": reindex_id, "spaces": list(space_ids)})


_STATES = text("""
    UPDATE models SET state = measured.state FROM (
        SELECT vectors.model_id, CASE WHEN bool_and(no_shift) THEN 'no_shift' ELSE 'indexed' END AS state
        FROM vectors JOIN revisions ON revisions.id = vectors.revision_id AND revisions.current
        WHERE vectors.space_id = ANY(:spaces) AND NOT vectors.deleted GROUP BY vectors.model_id
    ) AS measured
    WHERE models.id = measured.model_id AND models.state IN ('indexed', 'no_shift') AND models.state <> measured.state
""")


def update_model_states(session: Session, space_ids: Sequence[int]) -> None:
    """Set models to `indexed` or `no_shift`, by their vectors in these spaces."""
    session.execute(_STATES, {"spaces": list(space_ids)})


_DISCARD = text("""
    UPDATE vectors SET seq = nextval('change_seq'), deleted = true WHERE id = ANY(ARRAY(
        SELECT vectors.id FROM spaces JOIN LATERAL (
            SELECT id FROM vectors WHERE space_id = spaces.id AND NOT deleted ORDER BY seq LIMIT :limit
        ) AS vectors ON true
        WHERE spaces.edition = :reindex_id AND NOT spaces.serving AND spaces.edition <> 0 LIMIT :limit
    ))
""")


def discard_page(session: Session, reindex_id: int, limit: int) -> int:
    """Turn up to `limit` vectors that a reindex measured into tombstones. Returns how many."""
    return session.execute(_DISCARD, {"reindex_id": reindex_id, "limit": limit}).rowcount  # type: ignore[attr-defined]


_SAMPLE = text("""
    SELECT model_id FROM vectors WHERE space_id = :space_id AND NOT deleted AND NOT no_shift
    GROUP BY model_id ORDER BY hashint8extended(model_id, :seed), model_id LIMIT :limit
""")


def sample_models(session: Session, space_id: int, limit: int, seed: int) -> list[int]:
    """The ids of up to `limit` models of a space that shift their base, chosen by `seed`."""
    return list(session.execute(_SAMPLE, {"space_id": space_id, "limit": limit, "seed": seed}).scalars())


def has_at_least(session: Session, space_id: int, count: int) -> bool:
    """Whether a space has at least `count` vectors. Stops counting there."""
    statement = select(Vector.id).where(Vector.space_id == space_id, ~Vector.deleted)
    # the order of an index, so that the planner uses it
    limited = statement.order_by(Vector.seq).limit(count).subquery()
    return session.execute(select(func.count()).select_from(limited)).scalar_one() >= count
