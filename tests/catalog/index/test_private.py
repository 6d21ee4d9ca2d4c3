"""What is hidden is found by its viewers alone: in a main segment, beside it, and where a space is searched exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from catalog.auth import repository as access
from catalog.auth.viewer import EVERYTHING, PUBLIC, Viewer
from catalog.database import Database
from catalog.index.attributes import AttributeColumns
from catalog.index.builder import Builder
from catalog.index.filters import NO_FILTERS, Filters
from catalog.index.follower import Follower
from catalog.models.repository.attributes import Attributes
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.index import DIMENSION

ME, YOU = Viewer("me"), Viewer("you")
VIEWERS = [PUBLIC, ME, YOU, EVERYTHING]


def hide(database: Database) -> None:
    """Every third model is private; of these I may see every other."""
    with database.transaction() as session:
        feed.lock_feed(session)
        session.execute(text("UPDATE models SET private = true, state = 'indexed' WHERE id % 3 = 0"))
        for model_id in session.execute(text("SELECT id FROM models WHERE private ORDER BY id")).scalars().all():
            access.grant(session, model_id, "me" if model_id % 6 == 0 else "somebody")


def may_see(model_ids: np.ndarray, viewer: Viewer) -> np.ndarray:
    public = model_ids % 3 != 0
    return public | (viewer.everything | ((viewer == ME) & (model_ids % 6 == 0)))


@pytest.mark.parametrize("main", [False, True])
@pytest.mark.parametrize("viewer", VIEWERS)
def test_each_viewer_finds_the_nearest_of_what_it_may_see(
    builder: Builder, filled: Database, pool: np.ndarray, tmp_path: Path, main: bool, viewer: Viewer
):
    hide(filled)
    if main:
        builder.build(1, force=True)
    follower = Follower(filled, 3600, tmp_path / "index" if main else None)
    follower.catch_up()
    try:
        index = follower.index(1, DIMENSION)
        assert (index.main is not None) == main
        ids = np.arange(1, len(pool) + 1)
        candidates = ids[may_see(ids, viewer)]
        allowed = follower.allowed(NO_FILTERS, viewer)
        shared = total = 0
        for query in pool[3:300:30]:
            found = index.search(query, 10, allowed=allowed).model_ids
            truth = candidates[np.argsort(-(pool[candidates - 1] @ query), kind="stable")[:10]]
            assert len(found) == 10
            assert may_see(found, viewer).all()
            shared, total = shared + len(np.intersect1d(found, truth)), total + 10
        assert shared >= (0.95 * total if main else total)
        assert index.count(allowed) == len(candidates)
    finally:
        follower.stop()


def test_one_that_came_after_the_main_segment_is_hidden_too(builder: Builder, filled: Database, tmp_path: Path):
    builder.build(1, force=True)
    follower = Follower(filled, 3600, tmp_path / "index")
    follower.catch_up()
    try:
        index = follower.index(1, DIMENSION)
        with filled.transaction() as session:
            key = session.execute(text("SELECT key FROM spaces")).scalar_one()
        query = np.eye(DIMENSION, dtype=np.float32)[0]
        late = entries.put_private(filled, "o/late", query, "me")
        with filled.transaction() as session:
            session.execute(text("UPDATE vectors SET space_id = 1 WHERE model_id = :id"), {"id": late})
        assert key
        follower.catch_up()
        for viewer in VIEWERS:
            found = index.search(query, 1, allowed=follower.allowed(NO_FILTERS, viewer)).model_ids.tolist()
            assert (found == [late]) == (viewer in (ME, EVERYTHING))
    finally:
        follower.stop()


# the columns by themselves


def attributes(model_id: int, seq: int, viewers: list[str] | None = None, twin: int | None = None) -> Attributes:
    return Attributes(seq, model_id, "ann", "base", "lora", None, [], None, None, None, None, viewers, twin)


def passing(columns: AttributeColumns, viewer: Viewer, filters: Filters = NO_FILTERS) -> list[int]:
    mask = columns.mask(filters, viewer)
    assert mask is not None
    return np.flatnonzero(mask).tolist()


def test_without_private_models_nothing_is_filtered():
    columns = AttributeColumns()
    columns.apply([attributes(1, 1)])
    assert columns.mask(NO_FILTERS, ME) is None


def test_a_private_model_stands_in_place_of_the_public_one_for_its_viewers():
    columns = AttributeColumns()
    columns.apply([attributes(1, 1), attributes(2, 2), attributes(3, 3, ["me"], twin=1)])
    assert passing(columns, ME) == passing(columns, EVERYTHING) == [2, 3]
    assert passing(columns, YOU) == passing(columns, PUBLIC) == [1, 2]
    assert passing(columns, ME, Filters(owners=("ann",))) == [2, 3]


def test_access_that_is_taken_back_hides_it_again():
    columns = AttributeColumns()
    columns.apply([attributes(1, 1), attributes(2, 2, ["me", "you"])])
    columns.apply([attributes(2, 3, ["you"])])
    assert (passing(columns, ME), passing(columns, YOU)) == ([1], [1, 2])


def test_a_model_that_is_not_known_yet_is_hidden_once_there_are_private_ones():
    columns = AttributeColumns()
    columns.apply([attributes(1, 1), attributes(2, 2, ["me"])])
    assert not columns.mask(NO_FILTERS, PUBLIC)[-1]
