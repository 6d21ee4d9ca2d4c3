"""Fill a catalog with any number of models and vectors by COPY, as if workers had stored them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from psycopg import Connection
from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space
from catalog.tables import SpaceRow
from catalog.vectors.repository import feed

SPACE = Space("delta_activations", -1, "tiny/base", "b" * 40, "c" * 64, "float32", "1")

# the model's number determines every filterable attribute; 0.1% of the models have the tag `rare`, 1% the tag `some`
_MODELS = text("""
    INSERT INTO models (repo_id, owner, source, state, license, tags, downloads, likes, hub_updated_at, seq)
    SELECT 'owner-' || number % 1000 || '/' || :prefix || '-' || number, 'owner-' || number % 1000, 'hub', 'indexed',
        (ARRAY['apache-2.0', 'mit', 'llama3.1', 'gemma'])[1 + number % 4],
        array_remove(ARRAY['peft', CASE WHEN number % 100 = 0 THEN 'some' END,
            CASE WHEN number % 1000 = 0 THEN 'rare' END], NULL),
        number::bigint * 7919 % 1000003, number % 500, timestamptz '2026-01-01' + number % 1000 * interval '1 hour',
        nextval('change_seq')
    FROM generate_series(1, :count) AS number
    RETURNING id
""")
_REVISIONS = text("""
    INSERT INTO revisions (model_id, sha, current, kind, base_repo, base_sha, base_evidence)
    SELECT id, md5(repo_id) || '00000000', true, CASE WHEN id % 2 = 0 THEN 'lora' ELSE 'full' END, :base, :sha, '{}'
    FROM models WHERE id BETWEEN :first AND :last ORDER BY id RETURNING id
""")
_VECTORS = """
    COPY vectors (space_id, model_id, revision_id, seq, dimension, data, norm, no_shift)
    FROM STDIN (FORMAT BINARY)
"""


def fill(
    database: Database,
    count: int,
    dimension: int,
    blocks: Iterable[np.ndarray],
    space: Space = SPACE,
    prefix: str = "m",
) -> int:
    """Create `count` models with vectors (count, d), which are passed in blocks, in one transaction.

    The ids of the models are consecutive; returns the first one.
    """
    with database.transaction() as session:
        feed.lock_feed(session)
        row = spaces.ensure(session, space, dimension)
        first = session.execute(_MODELS, {"count": count, "prefix": prefix}).scalars().all()[0]
        parameters = {"first": first, "last": first + count - 1, "base": space.base_repo, "sha": space.base_sha}
        revision = session.execute(_REVISIONS, parameters).scalars().all()[0]
        _copy(session, row, first, revision, blocks)
    return first


def _copy(session: Session, space: SpaceRow, model: int, revision: int, blocks: Iterable[np.ndarray]) -> None:
    driver = cast(Connection[Any], session.connection().connection.driver_connection)
    seq = session.execute(text("SELECT nextval('change_seq')")).scalar_one()
    with driver.cursor() as cursor, cursor.copy(_VECTORS) as copy:
        copy.set_types(["int8", "int8", "int8", "int8", "int8", "bytea", "float8", "bool"])
        for block in blocks:
            for vector in block.astype("<f4"):
                seq += 1
                norm = float(np.linalg.norm(vector))
                copy.write_row((space.id, model, revision, seq, space.dimension, vector.tobytes(), norm, False))
                model, revision = model + 1, revision + 1
    session.execute(text("SELECT setval('change_seq', :seq)"), {"seq": seq})
