from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from sqlalchemy.orm import Session

from catalog.archives import repository as archives
from catalog.arithmetic import service as arithmetic_service
from catalog.auth.viewer import EVERYTHING, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import (
    AmbiguousTerm,
    ArchiveNotFound,
    MergeIncompatible,
    MergeNotDone,
    MergeNotFound,
    NameTaken,
    TooManyJobs,
)
from catalog.index.follower import Follower
from catalog.jobs import control as job_control
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import attempts, jobs
from catalog.merges import repository as merges
from catalog.merges import service as merge_service
from catalog.merges.methods import Blend
from catalog.models.repository import models, names
from catalog.search.reranking import Page
from catalog.search.service import Options
from catalog.spaces import repository as spaces
from catalog.tables import Job, JobState, Merge, ModelState, Source
from tests.support import catalog as entries
from tests.support.catalog import SPACE

BLEND = Blend({"owner/law": 1.0, "owner/math": 1.0}, "ties", 0.3)
NOBODY = Quota("anonymous", 100)
ME, YOU = Viewer("me"), Viewer("you")
NEAR = Options(Page(k=3), unconfident=True)


@pytest.fixture
def catalog(database: Database) -> Database:
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    entries.put(database, "owner/mix", [1, 1, 0.2])
    return database


@pytest.fixture
def index(catalog: Database) -> Follower:
    follower = Follower(catalog, interval=3600)
    follower.catch_up()
    return follower


def ask(database: Database, viewer: Viewer = PUBLIC, name: str | None = None) -> int:
    return merge_service.ask(database, BLEND, name, NOBODY, viewer)[0].id


def put(database: Database, merge_id: int, vector: list[float], archive: bytes = b"zip") -> None:
    """What a worker would have stored."""
    merge, job = merge_service.get(database, merge_id, EVERYTHING)
    entries.claim(database, job.id, worker := entries.put_worker(database))
    with database.transaction() as session:
        assert attempts.finish(session, job.id, worker, None)
        space = spaces.get(session, SPACE.key)
        merges.store(session, merge_id, {space.id: np.array(vector, np.float32)}, {"rank": 8, "spaces": {}})
        archives.store(session, merge.model_id, io.BytesIO(archive))


def test_a_merge_is_a_job_that_wants_a_worker_for_itself(catalog: Database):
    merge, job = merge_service.ask(catalog, BLEND, None, NOBODY, PUBLIC)
    assert (job.state, job.alone, job.base_hint) == (JobState.QUEUED, True, SPACE.base_repo)
    assert (job.model.source, job.model.repo_id) == (Source.MERGE, f"merge:{merge.id}@{SPACE.base_repo}")
    assert (merge.method, merge.settings) == ("ties", {"density": 0.3})


def test_what_cannot_be_merged_leaves_nothing(catalog: Database):
    with catalog.transaction() as session:
        names.rename(session, models.get(session, "owner/mix"), "owner/both")
    with pytest.raises(MergeIncompatible, match="twice"):
        merge_service.ask(catalog, Blend({"owner/mix": 1.0, "owner/both": 1.0}), None, NOBODY, PUBLIC)
    assert merge_service.page(catalog, EVERYTHING, before=None, limit=10) == []


def test_a_merge_counts_in_its_quota(catalog: Database):
    with pytest.raises(TooManyJobs):
        merge_service.ask(catalog, BLEND, None, Quota("anonymous", 0), PUBLIC)
    assert merge_service.page(catalog, EVERYTHING, before=None, limit=10) == []


def test_a_name_is_taken_once_by_each(catalog: Database):
    ask(catalog, ME, "both")
    ask(catalog, YOU, "both")
    with pytest.raises(NameTaken):
        ask(catalog, ME, "both")
    with catalog.transaction() as session:
        assert len(jobs.page(session, viewer=EVERYTHING)) == 2


def test_a_plan_has_the_neighbours_of_the_prediction_without_its_parts(catalog: Database, index: Follower):
    found = merge_service.plan(catalog, index, BLEND, NEAR)
    assert [each.model.repo_id for each in found.answer.neighbours] == ["owner/mix", "owner/code"]


def test_prediction_and_result_have_neighbours_of_their_own(catalog: Database, index: Follower):
    merge_id = ask(catalog)
    assert merge_service.near(catalog, index, merge_id, NEAR).made is None
    put(catalog, merge_id, [0, 0.1, 1])
    found = merge_service.near(catalog, index, merge_id, NEAR)
    assert [found.predicted.neighbours[0].model.repo_id, found.made.neighbours[0].model.repo_id] == [
        "owner/mix",
        "owner/code",
    ]


def test_what_was_predicted_stays_when_parts_are_measured_anew(catalog: Database, index: Follower):
    merge_id = ask(catalog)
    entries.put(catalog, "owner/law", [0, 0, 1], commit="two")
    with catalog.transaction() as session:
        [(_, vector)] = merges.vectors(session, merge_id, predicted=True)
    assert vector.tolist() == [1, 1, 0]


def test_its_adapter_is_handed_out_once_it_is_made(catalog: Database):
    merge_id = ask(catalog, name="both")
    with pytest.raises(MergeNotDone):
        merge_service.adapter(catalog, merge_id, PUBLIC)
    put(catalog, merge_id, [1, 1, 0], b"bytes")
    found = merge_service.adapter(catalog, merge_id, PUBLIC)
    assert (found.name, b"".join(found.pieces)) == ("merge-both.zip", b"bytes")


def test_an_adapter_that_was_taken_away_is_told(catalog: Database):
    merge_id = ask(catalog)
    put(catalog, merge_id, [1, 1, 0])
    with catalog.transaction() as session:
        [archive] = archives.of_models(session, [merges.get(session, merge_id).model_id]).values()
        session.delete(archive)
    with pytest.raises(ArchiveNotFound):
        merge_service.adapter(catalog, merge_id, PUBLIC)


def test_an_adapter_whose_job_was_cancelled_is_not_promised(catalog: Database):
    merge_id = ask(catalog)
    job_control.cancel(catalog, merge_service.get(catalog, merge_id, PUBLIC)[1].id)
    with pytest.raises(MergeNotDone, match="its job is cancelled"):
        merge_service.adapter(catalog, merge_id, PUBLIC)


def test_a_merge_of_a_key_is_that_keys(catalog: Database, index: Follower):
    merge_id = ask(catalog, ME, "mine")
    assert merge_service.get(catalog, merge_id, ME)[0].name == "mine"
    for look in (
        lambda: merge_service.get(catalog, merge_id, YOU),
        lambda: merge_service.adapter(catalog, merge_id, YOU),
        lambda: merge_service.near(catalog, index, merge_id, NEAR),
        lambda: merge_service.delete(catalog, merge_id, PUBLIC),
    ):
        with pytest.raises(MergeNotFound):
            look()
    assert merge_service.page(catalog, YOU, before=None, limit=10) == []


def test_nothing_is_left_of_a_merge_that_is_deleted(catalog: Database):
    merge_id = ask(catalog)
    put(catalog, merge_id, [1, 1, 0])
    model_id = merge_service.delete(catalog, merge_id, PUBLIC)[0].model_id
    with catalog.transaction() as session:
        assert jobs.page(session) == []
        assert archives.of_models(session, [model_id]) == {}
        assert models.counts(session)[ModelState.PENDING] == 0
    with pytest.raises(MergeNotFound):
        merge_service.get(catalog, merge_id, PUBLIC)


def test_a_merge_that_is_deleted_while_a_page_is_read_is_left_out(catalog: Database, monkeypatch: pytest.MonkeyPatch):
    kept, gone = ask(catalog), ask(catalog)
    jobs_of = merges.jobs_of

    def delete_before(session: Session, found: Sequence[Merge]) -> dict[int, Job]:
        with catalog.transaction() as other:
            merges.remove(other, merges.get(other, gone))
        return jobs_of(session, found)

    monkeypatch.setattr(merges, "jobs_of", delete_before)
    assert [merge.id for merge, _ in merge_service.page(catalog, PUBLIC, before=None, limit=10)] == [kept]


def test_a_merge_that_is_deleted_while_it_is_read_is_not_found(catalog: Database):
    merge_id = ask(catalog)
    with catalog.transaction() as session:
        read = merges.get(session, merge_id)
        merge_service.delete(catalog, merge_id, PUBLIC)
        with pytest.raises(MergeNotFound):
            merges.job_of(session, read)


def test_a_merge_that_is_deleted_before_its_vectors_are_read_is_not_found(
    catalog: Database, index: Follower, monkeypatch: pytest.MonkeyPatch
):
    merge_id = ask(catalog)
    monkeypatch.setattr(merges, "vectors", lambda *_, **__: [])
    with pytest.raises(MergeNotFound):
        merge_service.near(catalog, index, merge_id, NEAR)


def test_it_is_a_term_of_expressions_once_it_is_made(catalog: Database, index: Follower):
    merge_id = ask(catalog, name="both")
    with pytest.raises(MergeNotDone):
        arithmetic_service.by_expression(catalog, index, arithmetic_service.Question("merge:both"), NEAR)
    put(catalog, merge_id, [0, 0.5, 1])
    for term in ("merge:both", "both", f"merge:{merge_id}"):
        found = arithmetic_service.by_expression(
            catalog, index, arithmetic_service.Question(f"{term} + owner/law"), NEAR
        )
        assert found.total.vector.tolist() == [1, 0.5, 1]
        assert found.total.terms[0].meaning.full == f"merge:{merge_id}"


def test_a_name_that_a_vector_has_too_is_ambiguous(catalog: Database, index: Follower):
    put(catalog, ask(catalog, name="both"), [1, 1, 0])
    arithmetic_service.save_vector(catalog, "both", [1.0, 0, 0], space_key=SPACE.key, note=None)
    with pytest.raises(AmbiguousTerm, match="vector:both, merge:1"):
        arithmetic_service.by_expression(catalog, index, arithmetic_service.Question("both"), NEAR)
