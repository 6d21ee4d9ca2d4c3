from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from sqlalchemy.orm import Session

from catalog.archives import repository as archives
from catalog.arithmetic import service as arithmetic_service
from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import (
    AmbiguousTerm,
    ArchiveNotFound,
    MergeIncompatible,
    MergeNotFinished,
    MergeNotFound,
    NameTaken,
    TooManyJobs,
)
from catalog.index.follower import IndexFollower
from catalog.jobs import control as job_control
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import attempts, jobs
from catalog.merges import repository as merges
from catalog.merges import service as merge_service
from catalog.merges.methods import MergeSpec
from catalog.models.repository import models, names
from catalog.search.reranking import PageOptions
from catalog.search.service import SearchOptions
from catalog.spaces import repository as spaces
from catalog.tables import Job, JobState, Merge, ModelState, Source
from tests.support import catalog as entries
from tests.support.catalog import SPACE

SPEC = MergeSpec({"owner/law": 1.0, "owner/math": 1.0}, "ties", 0.3)
ANONYMOUS = Quota("anonymous", 100)
ME, YOU = Viewer("me"), Viewer("you")
OPTIONS = SearchOptions(PageOptions(k=3), include_low_confidence=True)


@pytest.fixture
def catalog(database: Database) -> Database:
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    entries.put(database, "owner/mix", [1, 1, 0.2])
    return database


@pytest.fixture
def index(catalog: Database) -> IndexFollower:
    follower = IndexFollower(catalog, interval=3600)
    follower.sync()
    return follower


def create_merge(database: Database, viewer: Viewer = PUBLIC, name: str | None = None) -> int:
    return merge_service.create(database, SPEC, name, ANONYMOUS, viewer)[0].id


def finish(database: Database, merge_id: int, vector: list[float], archive: bytes = b"zip") -> None:
    """Store a result, as a worker does."""
    merge, job = merge_service.get(database, merge_id, ADMIN)
    entries.claim(database, job.id, worker := entries.put_worker(database))
    with database.transaction() as session:
        assert attempts.finish(session, job.id, worker, None)
        space = spaces.get(session, SPACE.key)
        merges.store(session, merge_id, {space.id: np.array(vector, np.float32)}, {"rank": 8, "spaces": {}})
        archives.store(session, merge.model_id, io.BytesIO(archive))


def test_create_enqueues_an_exclusive_job(catalog: Database):
    merge, job = merge_service.create(catalog, SPEC, None, ANONYMOUS, PUBLIC)
    assert (job.state, job.exclusive, job.base_hint) == (JobState.QUEUED, True, SPACE.base_repo)
    assert (job.model.source, job.model.repo_id) == (Source.MERGE, f"merge:{merge.id}@{SPACE.base_repo}")
    assert (merge.method, merge.settings) == ("ties", {"density": 0.3})


def test_refused_merge_stores_nothing(catalog: Database):
    with catalog.transaction() as session:
        names.rename(session, models.get(session, "owner/mix"), "owner/both")
    with pytest.raises(MergeIncompatible, match="twice"):
        merge_service.create(catalog, MergeSpec({"owner/mix": 1.0, "owner/both": 1.0}), None, ANONYMOUS, PUBLIC)
    assert merge_service.list_page(catalog, ADMIN, before=None, limit=10) == []


def test_create_beyond_the_quota_is_refused(catalog: Database):
    with pytest.raises(TooManyJobs):
        merge_service.create(catalog, SPEC, None, Quota("anonymous", 0), PUBLIC)
    assert merge_service.list_page(catalog, ADMIN, before=None, limit=10) == []


def test_name_is_unique_for_each_viewer(catalog: Database):
    create_merge(catalog, ME, "both")
    create_merge(catalog, YOU, "both")
    with pytest.raises(NameTaken):
        create_merge(catalog, ME, "both")
    with catalog.transaction() as session:
        assert len(jobs.list_page(session, viewer=ADMIN)) == 2


def test_preview_has_the_neighbors_of_the_prediction_without_the_parts(catalog: Database, index: IndexFollower):
    preview = merge_service.preview(catalog, index, SPEC, OPTIONS)
    assert [neighbor.model.repo_id for neighbor in preview.answer.neighbors] == ["owner/mix", "owner/code"]


def test_prediction_and_measured_vector_have_different_neighbors(catalog: Database, index: IndexFollower):
    merge_id = create_merge(catalog)
    assert merge_service.get_neighbors(catalog, index, merge_id, OPTIONS).measured is None
    finish(catalog, merge_id, [0, 0.1, 1])
    neighbors = merge_service.get_neighbors(catalog, index, merge_id, OPTIONS)
    assert neighbors.predicted.neighbors[0].model.repo_id == "owner/mix"
    assert neighbors.measured.neighbors[0].model.repo_id == "owner/code"


def test_prediction_does_not_change_when_a_part_is_measured_again(catalog: Database, index: IndexFollower):
    merge_id = create_merge(catalog)
    entries.put(catalog, "owner/law", [0, 0, 1], commit="two")
    with catalog.transaction() as session:
        [(_, vector)] = merges.get_vectors(session, merge_id, predicted=True)
    assert vector.tolist() == [1, 1, 0]


def test_adapter_can_be_downloaded_once_the_merge_is_done(catalog: Database):
    merge_id = create_merge(catalog, name="both")
    with pytest.raises(MergeNotFinished):
        merge_service.get_adapter(catalog, merge_id, PUBLIC)
    finish(catalog, merge_id, [1, 1, 0], b"bytes")
    download = merge_service.get_adapter(catalog, merge_id, PUBLIC)
    assert (download.name, b"".join(download.pieces)) == ("merge-both.zip", b"bytes")


def test_adapter_that_was_deleted_raises_archive_not_found(catalog: Database):
    merge_id = create_merge(catalog)
    finish(catalog, merge_id, [1, 1, 0])
    with catalog.transaction() as session:
        [archive] = archives.get_by_models(session, [merges.get(session, merge_id).model_id]).values()
        session.delete(archive)
    with pytest.raises(ArchiveNotFound):
        merge_service.get_adapter(catalog, merge_id, PUBLIC)


def test_adapter_of_a_cancelled_merge_raises_merge_not_finished(catalog: Database):
    merge_id = create_merge(catalog)
    job_control.cancel(catalog, merge_service.get(catalog, merge_id, PUBLIC)[1].id)
    with pytest.raises(MergeNotFinished, match="its job is cancelled"):
        merge_service.get_adapter(catalog, merge_id, PUBLIC)


def test_merge_of_a_key_is_hidden_from_other_viewers(catalog: Database, index: IndexFollower):
    merge_id = create_merge(catalog, ME, "mine")
    assert merge_service.get(catalog, merge_id, ME)[0].name == "mine"
    for call in (
        lambda: merge_service.get(catalog, merge_id, YOU),
        lambda: merge_service.get_adapter(catalog, merge_id, YOU),
        lambda: merge_service.get_neighbors(catalog, index, merge_id, OPTIONS),
        lambda: merge_service.delete(catalog, merge_id, PUBLIC),
    ):
        with pytest.raises(MergeNotFound):
            call()
    assert merge_service.list_page(catalog, YOU, before=None, limit=10) == []


def test_delete_removes_job_archive_and_model(catalog: Database):
    merge_id = create_merge(catalog)
    finish(catalog, merge_id, [1, 1, 0])
    model_id = merge_service.delete(catalog, merge_id, PUBLIC)[0].model_id
    with catalog.transaction() as session:
        assert jobs.list_page(session) == []
        assert archives.get_by_models(session, [model_id]) == {}
        assert models.count_by_state(session)[ModelState.PENDING] == 0
    with pytest.raises(MergeNotFound):
        merge_service.get(catalog, merge_id, PUBLIC)


def test_merge_deleted_while_a_page_is_read_is_left_out(catalog: Database, monkeypatch: pytest.MonkeyPatch):
    kept_id, deleted_id = create_merge(catalog), create_merge(catalog)
    get_jobs = merges.get_jobs

    def delete_first(session: Session, rows: Sequence[Merge]) -> dict[int, Job]:
        with catalog.transaction() as other:
            merges.delete(other, merges.get(other, deleted_id))
        return get_jobs(session, rows)

    monkeypatch.setattr(merges, "get_jobs", delete_first)
    assert [merge.id for merge, _ in merge_service.list_page(catalog, PUBLIC, before=None, limit=10)] == [kept_id]


def test_job_of_a_merge_deleted_since_it_was_read_raises_not_found(catalog: Database):
    merge_id = create_merge(catalog)
    with catalog.transaction() as session:
        merge = merges.get(session, merge_id)
        merge_service.delete(catalog, merge_id, PUBLIC)
        with pytest.raises(MergeNotFound):
            merges.get_job(session, merge)


def test_neighbors_of_a_merge_deleted_since_it_was_read_raise_not_found(
    catalog: Database, index: IndexFollower, monkeypatch: pytest.MonkeyPatch
):
    merge_id = create_merge(catalog)
    monkeypatch.setattr(merges, "get_vectors", lambda *_, **__: [])
    with pytest.raises(MergeNotFound):
        merge_service.get_neighbors(catalog, index, merge_id, OPTIONS)


def test_finished_merge_is_a_term_of_expressions(catalog: Database, index: IndexFollower):
    merge_id = create_merge(catalog, name="both")
    with pytest.raises(MergeNotFinished):
        arithmetic_service.by_expression(catalog, index, arithmetic_service.ExpressionQuery("merge:both"), OPTIONS)
    finish(catalog, merge_id, [0, 0.5, 1])
    for term in ("merge:both", "both", f"merge:{merge_id}"):
        answer = arithmetic_service.by_expression(
            catalog, index, arithmetic_service.ExpressionQuery(f"{term} + owner/law"), OPTIONS
        )
        assert answer.total.vector.tolist() == [1, 0.5, 1]
        assert answer.total.terms[0].resolved.canonical == f"merge:{merge_id}"


def test_name_shared_with_a_stored_vector_is_ambiguous(catalog: Database, index: IndexFollower):
    finish(catalog, create_merge(catalog, name="both"), [1, 1, 0])
    arithmetic_service.store_vector(catalog, "both", [1.0, 0, 0], space_key=SPACE.key, note=None)
    with pytest.raises(AmbiguousTerm, match="vector:both, merge:1"):
        arithmetic_service.by_expression(catalog, index, arithmetic_service.ExpressionQuery("both"), OPTIONS)
