from __future__ import annotations

from datetime import UTC, datetime

import pytest

from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.models import curation
from catalog.models.repository import attributes, models
from catalog.models.repository.attributes import Attributes
from catalog.models.repository.models import Metadata
from catalog.vectors.repository import feed
from tests.support import catalog as entries

METADATA = Metadata("mit", ("peft", "code"), 12, 3, datetime(2026, 1, 2, tzinfo=UTC))


def changes(database: Database, after: int = 0, limit: int = 100) -> list[Attributes]:
    with database.transaction() as session:
        return attributes.list_changes(session, after, limit)


def describe(database: Database, model_id: int, metadata: Metadata) -> None:
    with database.transaction() as session:
        feed.lock_feed(session)
        models.update_metadata(session, model_id, metadata)


def test_measured_model_is_in_the_feed(database: Database):
    model_id = entries.put(database, "ann/one", [1, 0])
    [model] = changes(database)
    assert (model.model_id, model.owner, model.base, model.kind) == (model_id, "ann", entries.BASE, "lora")
    assert (model.license, model.tags, model.downloads, model.likes, model.updated) == (None, [], None, None, None)


def test_pending_model_is_not_in_the_feed(database: Database):
    entries.put_model(database, "ann/new")
    assert changes(database) == []


def test_new_metadata_puts_the_model_into_the_feed_again(database: Database):
    model_id = entries.put(database, "ann/one", [1, 0])
    [before] = changes(database)
    describe(database, model_id, METADATA)
    [after] = changes(database, before.seq)
    assert (after.license, after.tags, after.downloads, after.likes) == ("mit", ["peft", "code"], 12, 3)
    assert after.updated == pytest.approx(METADATA.hub_updated_at.timestamp())


def test_team_tags_are_in_the_feed_and_survive_new_metadata(database: Database):
    model_id = entries.put(database, "ann/one", [1, 0])
    [before] = changes(database)
    assert before.team_tags == []
    curation.change_tags(database, "ann/one", add=["prod", "ours"], remove=[], viewer=ADMIN)
    [tagged] = changes(database, before.seq)
    assert sorted(tagged.team_tags) == ["ours", "prod"]
    describe(database, model_id, METADATA)
    [after] = changes(database, tagged.seq)
    assert (after.tags, sorted(after.team_tags)) == (["peft", "code"], ["ours", "prod"])


def test_unchanged_team_tags_are_no_change_in_the_feed(database: Database):
    entries.put(database, "ann/one", [1, 0])
    curation.change_tags(database, "ann/one", add=["prod"], remove=[], viewer=ADMIN)
    [tagged] = changes(database)
    curation.change_tags(database, "ann/one", add=["prod"], remove=["none"], viewer=ADMIN)
    assert changes(database, tagged.seq) == []


def test_change_of_base_is_in_the_feed(database: Database):
    with database.transaction() as session:
        feed.lock_feed(session)
        entries.put_revision(session, "ann/one", "one", base="base/one")
        entries.put_revision(session, "ann/one", "two", base="base/two")
    assert [model.base for model in changes(database)] == ["base/two"]
    seq = changes(database)[0].seq
    with database.transaction() as session:
        feed.lock_feed(session)
        entries.put_revision(session, "ann/one", "one", base="base/one")
    assert [model.base for model in changes(database, seq)] == ["base/one"]


def test_pages_contain_each_model_once(database: Database):
    ids = [entries.put(database, f"ann/m{number}", [1, 0]) for number in range(5)]
    model_ids, after = [], 0
    while page := changes(database, after, 2):
        model_ids += [model.model_id for model in page]
        after = page[-1].seq
    assert model_ids == ids
