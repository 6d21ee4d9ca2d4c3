"""Only viewers with access find private models, in a main segment, in a fresh segment and in exact search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from catalog.auth.repository import access
from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import Database
from catalog.index.attributes import AttributeColumns
from catalog.index.builder import IndexBuilder
from catalog.index.filters import NO_FILTERS, Filters
from catalog.index.follower import IndexFollower
from catalog.models.repository.attributes import Attributes
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.index import DIMENSION

ME, YOU = Viewer("me"), Viewer("you")
VIEWERS = [PUBLIC, ME, YOU, ADMIN]


def hide(database: Database) -> None:
    """Make every third model private, and give ME access to every other one of these."""
    with database.transaction() as session:
        feed.lock_feed(session)
        session.execute(text("UPDATE models SET private = true, state = 'indexed' WHERE id % 3 = 0"))
        for model_id in session.execute(text("SELECT id FROM models WHERE private ORDER BY id")).scalars().all():
            access.grant(session, model_id, "me" if model_id % 6 == 0 else "another key")


def may_see(model_ids: np.ndarray, viewer: Viewer) -> np.ndarray:
    public = model_ids % 3 != 0
    return public | (viewer.is_admin | ((viewer == ME) & (model_ids % 6 == 0)))


@pytest.mark.parametrize("main", [False, True])
@pytest.mark.parametrize("viewer", VIEWERS)
def test_search_returns_the_nearest_models_that_the_viewer_may_see(
    builder: IndexBuilder, filled: Database, pool: np.ndarray, tmp_path: Path, main: bool, viewer: Viewer
):
    hide(filled)
    if main:
        builder.build(1, force=True)
    follower = IndexFollower(filled, 3600, tmp_path / "index" if main else None)
    follower.sync()
    try:
        index = follower.index(1, DIMENSION)
        assert (index.main is not None) == main
        ids = np.arange(1, len(pool) + 1)
        candidates = ids[may_see(ids, viewer)]
        allowed = follower.allowed(NO_FILTERS, viewer)
        shared = total = 0
        for query in pool[3:300:30]:
            nearest = index.search(query, 10, allowed=allowed).model_ids
            truth = candidates[np.argsort(-(pool[candidates - 1] @ query), kind="stable")[:10]]
            assert len(nearest) == 10
            assert may_see(nearest, viewer).all()
            shared, total = shared + len(np.intersect1d(nearest, truth)), total + 10
        assert shared >= (0.95 * total if main else total)
        assert index.count(allowed) == len(candidates)
    finally:
        follower.stop()


def test_private_model_added_after_the_build_is_hidden(builder: IndexBuilder, filled: Database, tmp_path: Path):
    builder.build(1, force=True)
    follower = IndexFollower(filled, 3600, tmp_path / "index")
    follower.sync()
    try:
        index = follower.index(1, DIMENSION)
        with filled.transaction() as session:
            key = session.execute(text("SELECT key FROM spaces")).scalar_one()
        query = np.eye(DIMENSION, dtype=np.float32)[0]
        late = entries.put_private(filled, "o/late", query, "me")
        with filled.transaction() as session:
            session.execute(text("UPDATE vectors SET space_id = 1 WHERE model_id = :id"), {"id": late})
        assert key
        follower.sync()
        for viewer in VIEWERS:
            nearest = index.search(query, 1, allowed=follower.allowed(NO_FILTERS, viewer)).model_ids.tolist()
            assert (nearest == [late]) == (viewer in (ME, ADMIN))
    finally:
        follower.stop()


# the attribute columns alone


def attributes(
    model_id: int, seq: int, viewers: list[str] | None = None, public_counterpart: int | None = None
) -> Attributes:
    return Attributes(
        seq, model_id, "ann", "base", "lora", None, [], None, None, None, None, None, viewers, public_counterpart
    )


def passing(columns: AttributeColumns, viewer: Viewer, filters: Filters = NO_FILTERS) -> list[int]:
    mask = columns.mask(filters, viewer)
    assert mask is not None
    return np.flatnonzero(mask).tolist()


def test_mask_is_none_without_private_models():
    columns = AttributeColumns()
    columns.apply([attributes(1, 1)])
    assert columns.mask(NO_FILTERS, ME) is None


def test_private_model_replaces_its_public_counterpart_for_its_viewers():
    columns = AttributeColumns()
    columns.apply([attributes(1, 1), attributes(2, 2), attributes(3, 3, ["me"], public_counterpart=1)])
    assert passing(columns, ME) == passing(columns, ADMIN) == [2, 3]
    assert passing(columns, YOU) == passing(columns, PUBLIC) == [1, 2]
    assert passing(columns, ME, Filters(owners=("ann",))) == [2, 3]


def test_revoking_access_hides_the_model_again():
    columns = AttributeColumns()
    columns.apply([attributes(1, 1), attributes(2, 2, ["me", "you"])])
    columns.apply([attributes(2, 3, ["you"])])
    assert (passing(columns, ME), passing(columns, YOU)) == ([1], [1, 2])


def test_unknown_models_are_hidden_once_there_are_private_ones():
    columns = AttributeColumns()
    columns.apply([attributes(1, 1), attributes(2, 2, ["me"])])
    assert not columns.mask(NO_FILTERS, PUBLIC)[-1]
