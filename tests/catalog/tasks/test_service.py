from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import func, update

from catalog.arithmetic import service as arithmetic_service
from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import BaseRequired, NameTaken, SpaceNotFound, TaskNotFinished, TaskNotFound, TooManyJobs
from catalog.index.follower import IndexFollower
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.search.reranking import PageOptions
from catalog.search.service import SearchOptions
from catalog.spaces import repository as spaces
from catalog.tables import Job, JobState, ModelState, Source
from catalog.tasks import nearest as task_nearest
from catalog.tasks import ranking as task_ranking
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from catalog.tasks.service import TaskRequest
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.tasks import ANONYMOUS, EXAMPLES, create_task, store_vectors

WIDE = replace(SPACE, base_repo="wide/base")
ME, YOU = Viewer("me"), Viewer("you")


@pytest.fixture
def catalog(database: Database) -> Database:
    """Three orthogonal models on one base, and one model on a wider base."""
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    entries.put(database, "owner/wide", np.ones(5), space=WIDE)
    return database


@pytest.fixture
def index(catalog: Database) -> IndexFollower:
    follower = IndexFollower(catalog, interval=3600)
    follower.sync()
    return follower


def rank(database: Database, index: IndexFollower, task_id: int, viewer: Viewer = PUBLIC) -> task_ranking.TaskAnswer:
    [answer] = task_ranking.rank_models(
        database, index, task_id, None, SearchOptions(PageOptions(k=3), include_low_confidence=True, viewer=viewer)
    )
    return answer


def put_bases(database: Database, count: int) -> None:
    for number in range(count):
        entries.put(database, f"owner/m{number}", np.ones(2), space=replace(SPACE, base_repo=f"many/b{number:02}"))


def test_task_over_more_bases_than_a_handful_requires_a_base(database: Database):
    put_bases(database, task_service.MAX_BASES + 1)

    with pytest.raises(BaseRequired, match=r"6 bases.*many/b00, many/b01, .*many/b05\."):
        task_service.create(database, TaskRequest(EXAMPLES, name="law"), ANONYMOUS, PUBLIC)

    with database.transaction() as session:
        assert jobs.list_page(session) == []
    task, _ = task_service.create(database, TaskRequest(EXAMPLES, "many/b03", "law"), ANONYMOUS, PUBLIC)
    assert [run.base_repo for run in task.runs] == ["many/b03"]


def test_task_runs_on_a_handful_of_bases(database: Database):
    put_bases(database, task_service.MAX_BASES)
    task, _ = task_service.create(database, TaskRequest(EXAMPLES), ANONYMOUS, PUBLIC)
    assert len(task.runs) == task_service.MAX_BASES


def test_message_names_the_first_of_many_bases(database: Database):
    put_bases(database, task_service.MAX_NAMED + 3)
    with pytest.raises(BaseRequired, match=r"23 bases.*many/b19 and 3 more\.$"):
        task_service.create(database, TaskRequest(EXAMPLES), ANONYMOUS, PUBLIC)


def test_create_enqueues_a_job_for_every_base_the_narrowest_first(catalog: Database):
    task, jobs_by_run = task_service.create(catalog, TaskRequest(EXAMPLES), ANONYMOUS, PUBLIC)
    assert [run.base_repo for run in task.runs] == [SPACE.base_repo, "wide/base"]
    run_jobs = [jobs_by_run[run.id] for run in task.runs]
    assert [(job.state, job.exclusive, job.base_hint) for job in run_jobs] == [
        (JobState.QUEUED, True, SPACE.base_repo),
        (JobState.QUEUED, True, "wide/base"),
    ]
    assert run_jobs[0].id < run_jobs[1].id


def test_create_without_indexed_models_raises_space_not_found(database: Database):
    with pytest.raises(SpaceNotFound):
        create_task(database, base=None)


def test_create_names_a_base_that_is_not_indexed(catalog: Database):
    with pytest.raises(SpaceNotFound, match="no/base"):
        create_task(catalog, base="no/base")


def test_create_beyond_the_quota_is_refused(catalog: Database):
    with pytest.raises(TooManyJobs):
        task_service.create(catalog, TaskRequest(EXAMPLES), Quota("anonymous", 1), PUBLIC)
    assert task_service.list_page(catalog, ADMIN, before=None, limit=10) == []


def test_models_are_ranked_with_confidence_intervals(catalog: Database, index: IndexFollower):
    task_id = create_task(catalog)
    store_vectors(catalog, task_id, [[1, 0.3, 0], [1, 0.2, 0], [1, 0.4, 0], [1, 0.25, 0], [1, 0.35, 0]])
    answer = rank(catalog, index, task_id)
    assert [neighbor.model.repo_id for neighbor in answer.answer.neighbors] == ["owner/law", "owner/math", "owner/code"]
    for neighbor, uncertainty in zip(answer.answer.neighbors[:2], answer.uncertainties, strict=False):
        assert uncertainty.low < neighbor.similarity < uncertainty.high
    assert [uncertainty.nearest_share for uncertainty in answer.uncertainties] == [1.0, 0.0, 0.0]
    assert answer.covered


def test_task_below_the_threshold_is_not_covered(catalog: Database, index: IndexFollower):
    task_id = create_task(catalog)
    store_vectors(catalog, task_id, [[1, 1, 1.1]] * 5)
    answer = rank(catalog, index, task_id)
    assert answer.answer.neighbors[0].similarity == pytest.approx(1.1 / np.sqrt(3.21), abs=1e-4)
    assert not answer.covered


def test_ranking_of_an_unfinished_task_raises_task_not_finished(catalog: Database, index: IndexFollower):
    task_id = create_task(catalog)
    with pytest.raises(TaskNotFinished):
        rank(catalog, index, task_id)


def test_task_is_visible_to_its_viewer_and_to_admins_only(catalog: Database, index: IndexFollower):
    task_id = create_task(catalog, ME)
    store_vectors(catalog, task_id, np.eye(3))
    for viewer in (ME, ADMIN):
        assert task_service.get(catalog, task_id, viewer)[0].id == task_id
        assert len(task_service.list_page(catalog, viewer, before=None, limit=10)) == 1
        assert rank(catalog, index, task_id, viewer).answer.neighbors
    for viewer in (PUBLIC, YOU):
        assert task_service.list_page(catalog, viewer, before=None, limit=10) == []
        for call in (task_service.get, task_service.delete):
            with pytest.raises(TaskNotFound):
                call(catalog, task_id, viewer)
        with pytest.raises(TaskNotFound):
            rank(catalog, index, task_id, viewer)


def test_name_is_unique_for_each_viewer(catalog: Database):
    create_task(catalog, ME, name="mine")
    create_task(catalog, YOU, name="mine")
    with pytest.raises(NameTaken):
        create_task(catalog, ME, name="mine")


@pytest.mark.parametrize("term", ["task:mine", "mine", "task:1"])
def test_finished_task_is_a_term_of_expressions(catalog: Database, index: IndexFollower, term: str):
    task_id = create_task(catalog, name="mine")
    assert task_id == 1
    store_vectors(catalog, task_id, [[1, 0.25, 0], [1, 0, 0], [1, 0.5, 0]])
    query = arithmetic_service.ExpressionQuery(f"{term} + owner/math", include_terms=True)
    answer = arithmetic_service.by_expression(catalog, index, query, SearchOptions(include_low_confidence=True))
    np.testing.assert_allclose(answer.total.vector, [1, 1.25, 0])


def test_unfinished_task_in_an_expression_raises_task_not_finished(catalog: Database, index: IndexFollower):
    create_task(catalog, name="mine")
    with pytest.raises(TaskNotFinished):
        arithmetic_service.by_expression(
            catalog, index, arithmetic_service.ExpressionQuery("mine + owner/math"), SearchOptions()
        )


def test_examples_are_deleted_after_the_last_job_unless_kept(catalog: Database):
    task_id, keeping_id = create_task(catalog), create_task(catalog, keep_examples=True)
    for finish, has_examples in ((False, (True, True)), (True, (False, True))):
        with catalog.transaction() as session:
            if finish:
                session.execute(update(Job).values(state=JobState.DONE, finished_at=func.now()))
            tasks.delete_examples(session)
        rows = [task_service.get(catalog, number, PUBLIC)[0] for number in (task_id, keeping_id)]
        assert tuple(task.examples is not None for task in rows) == has_examples


def test_delete_removes_jobs_and_models(catalog: Database):
    task_id = create_task(catalog)
    store_vectors(catalog, task_id, np.eye(3))
    task_service.delete(catalog, task_id, PUBLIC)
    with catalog.transaction() as session:
        assert jobs.list_page(session) == []
        assert models.count_by_state(session)[ModelState.PENDING] == 0
    with pytest.raises(TaskNotFound):
        task_service.get(catalog, task_id, PUBLIC)


def test_jobs_of_a_task_deleted_since_it_was_read_raise_not_found(catalog: Database):
    task_id = create_task(catalog)
    with catalog.transaction() as session:
        task = tasks.get(session, task_id)
        assert len(task.runs) == 1
        task_service.delete(catalog, task_id, PUBLIC)
        with pytest.raises(TaskNotFound):
            tasks.get_task_jobs(session, task)


def test_nearest_models_are_found_without_an_index(catalog: Database):
    with catalog.transaction() as session:
        space = spaces.get(session, SPACE.key)
        query = {SPACE.feature: np.array([[1, 0.5, 0.0]])}
        nearest = task_nearest.nearest_models(session, {SPACE.feature: space}, query, 2)
    assert [(model.repo_id, round(cosine, 3)) for model, cosine in nearest] == [
        ("owner/law", 0.894),
        ("owner/math", 0.447),
    ]


def test_hidden_model_of_a_task_has_the_source_examples(catalog: Database):
    task_id = create_task(catalog)
    [job] = task_service.get(catalog, task_id, PUBLIC)[1].values()
    assert (job.model.source, job.model.repo_id) == (Source.EXAMPLES, f"task:{task_id}@{SPACE.base_repo}")
