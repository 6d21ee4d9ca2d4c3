from __future__ import annotations

from datetime import UTC, datetime

import pytest

from catalog.database import Database
from catalog.models.repository import attributes, models
from catalog.models.repository.attributes import Attributes
from catalog.models.repository.models import Metadata
from catalog.vectors.repository import feed
from tests.support import catalog as entries

TOLD = Metadata("mit", ("peft", "code"), 12, 3, datetime(2026, 1, 2, tzinfo=UTC))


def changes(database: Database, after: int = 0, limit: int = 100) -> list[Attributes]:
    with database.transaction() as session:
        return attributes.changes(session, after, limit)


def describe(database: Database, model_id: int, metadata: Metadata) -> None:
    with database.transaction() as session:
        feed.lock_feed(session)
        models.describe(session, model_id, metadata)


def test_a_model_that_was_embedded_is_in_the_feed(database: Database):
    model_id = entries.put(database, "ann/one", [1, 0])
    [found] = changes(database)
    assert (found.model_id, found.owner, found.base, found.kind) == (model_id, "ann", entries.BASE, "lora")
    assert (found.licence, found.tags, found.downloads, found.likes, found.updated) == (None, [], None, None, None)


def test_a_model_that_waits_is_not(database: Database):
    entries.put_model(database, "ann/new")
    assert changes(database) == []


def test_what_the_hub_tells_is_in_the_feed_again(database: Database):
    model_id = entries.put(database, "ann/one", [1, 0])
    [before] = changes(database)
    describe(database, model_id, TOLD)
    [after] = changes(database, before.seq)
    assert (after.licence, after.tags, after.downloads, after.likes) == ("mit", ["peft", "code"], 12, 3)
    assert after.updated == pytest.approx(TOLD.hub_updated_at.timestamp())


def test_a_new_base_is_told_of(database: Database):
    with database.transaction() as session:
        feed.lock_feed(session)
        first = entries.put_revision(session, "ann/one", "one", base="base/one")
        entries.put_revision(session, "ann/one", "two", base="base/two")
    assert [each.base for each in changes(database)] == ["base/two"]
    seq = changes(database)[0].seq
    with database.transaction() as session:
        feed.lock_feed(session)
        models.restore(session, first)
    assert [each.base for each in changes(database, seq)] == ["base/one"]


def test_pages_go_over_all_of_them_once(database: Database):
    ids = [entries.put(database, f"ann/m{number}", [1, 0]) for number in range(5)]
    seen, after = [], 0
    while page := changes(database, after, 2):
        seen += [each.model_id for each in page]
        after = page[-1].seq
    assert seen == ids
