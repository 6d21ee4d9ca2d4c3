from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import func, update

from catalog.arithmetic import service as arithmetic_service
from catalog.auth.viewer import EVERYTHING, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import NameTaken, SpaceNotFound, TaskNotDone, TaskNotFound, TooManyJobs
from catalog.index.follower import Follower
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.search.reranking import Page
from catalog.search.service import Options
from catalog.spaces import repository as spaces
from catalog.tables import Job, JobState, ModelState, Source
from catalog.tasks import nearest as task_nearest
from catalog.tasks import ranking as task_ranking
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from catalog.tasks.service import Question
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.tasks import EXAMPLES, NOBODY, ask, put

WIDE = replace(SPACE, base_repo="wide/base")
ME, YOU = Viewer("me"), Viewer("you")


@pytest.fixture
def catalog(database: Database) -> Database:
    """Three models at right angles on one base, and one on a wider base."""
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    entries.put(database, "owner/wide", np.ones(5), space=WIDE)
    return database


@pytest.fixture
def index(catalog: Database) -> Follower:
    follower = Follower(catalog, interval=3600)
    follower.catch_up()
    return follower


def ranked(database: Database, index: Follower, task_id: int, viewer: Viewer = PUBLIC) -> task_ranking.TaskAnswer:
    [answer] = task_ranking.rank(database, index, task_id, None, Options(Page(k=3), unconfident=True, viewer=viewer))
    return answer


def test_every_base_in_the_index_is_asked_the_narrowest_first(catalog: Database):
    task, of_runs = task_service.ask(catalog, Question(EXAMPLES), NOBODY, PUBLIC)
    assert [run.base_repo for run in task.runs] == [SPACE.base_repo, "wide/base"]
    found = [of_runs[run.id] for run in task.runs]
    assert [(job.state, job.alone, job.base_hint) for job in found] == [
        (JobState.QUEUED, True, SPACE.base_repo),
        (JobState.QUEUED, True, "wide/base"),
    ]
    assert found[0].id < found[1].id


def test_where_nothing_is_indexed_there_is_nothing_to_ask(database: Database):
    with pytest.raises(SpaceNotFound):
        ask(database, base=None)


def test_a_base_that_is_not_indexed_is_named(catalog: Database):
    with pytest.raises(SpaceNotFound, match="no/base"):
        ask(catalog, base="no/base")


def test_a_task_counts_in_its_quota(catalog: Database):
    with pytest.raises(TooManyJobs):
        task_service.ask(catalog, Question(EXAMPLES), Quota("anonymous", 1), PUBLIC)
    assert task_service.page(catalog, EVERYTHING, before=None, limit=10) == []


def test_models_are_ranked_each_with_an_interval(catalog: Database, index: Follower):
    task_id = ask(catalog)
    put(catalog, task_id, [[1, 0.3, 0], [1, 0.2, 0], [1, 0.4, 0], [1, 0.25, 0], [1, 0.35, 0]])
    answer = ranked(catalog, index, task_id)
    assert [each.model.repo_id for each in answer.answer.neighbours] == ["owner/law", "owner/math", "owner/code"]
    for neighbour, sure in zip(answer.answer.neighbours[:2], answer.certainty, strict=False):
        assert sure.low < neighbour.similarity < sure.high
    assert [sure.first for sure in answer.certainty] == [1.0, 0.0, 0.0]
    assert answer.covered


def test_a_task_like_nothing_here_says_so(catalog: Database, index: Follower):
    task_id = ask(catalog)
    put(catalog, task_id, [[1, 1, 1.1]] * 5)
    answer = ranked(catalog, index, task_id)
    assert answer.answer.neighbours[0].similarity == pytest.approx(1.1 / np.sqrt(3.21), abs=1e-4)
    assert not answer.covered


def test_a_task_without_a_vector_has_no_neighbours(catalog: Database, index: Follower):
    task_id = ask(catalog)
    with pytest.raises(TaskNotDone):
        ranked(catalog, index, task_id)


def test_a_task_is_shown_to_whoever_asked_it(catalog: Database, index: Follower):
    task_id = ask(catalog, ME)
    put(catalog, task_id, np.eye(3))
    for viewer in (ME, EVERYTHING):
        assert task_service.get(catalog, task_id, viewer)[0].id == task_id
        assert len(task_service.page(catalog, viewer, before=None, limit=10)) == 1
        assert ranked(catalog, index, task_id, viewer).answer.neighbours
    for viewer in (PUBLIC, YOU):
        assert task_service.page(catalog, viewer, before=None, limit=10) == []
        for look in (task_service.get, task_service.delete):
            with pytest.raises(TaskNotFound):
                look(catalog, task_id, viewer)
        with pytest.raises(TaskNotFound):
            ranked(catalog, index, task_id, viewer)


def test_a_name_is_taken_once_by_each(catalog: Database):
    ask(catalog, ME, name="mine")
    ask(catalog, YOU, name="mine")
    with pytest.raises(NameTaken):
        ask(catalog, ME, name="mine")


@pytest.mark.parametrize("term", ["task:mine", "mine", "task:1"])
def test_a_task_is_a_term_of_sums(catalog: Database, index: Follower, term: str):
    task_id = ask(catalog, name="mine")
    assert task_id == 1
    put(catalog, task_id, [[1, 0.25, 0], [1, 0, 0], [1, 0.5, 0]])
    question = arithmetic_service.Question(f"{term} + owner/math", include_terms=True)
    composed = arithmetic_service.by_expression(catalog, index, question, Options(unconfident=True))
    np.testing.assert_allclose(composed.total.vector, [1, 1.25, 0])


def test_a_task_that_is_not_done_is_told_in_a_sum(catalog: Database, index: Follower):
    ask(catalog, name="mine")
    with pytest.raises(TaskNotDone):
        arithmetic_service.by_expression(catalog, index, arithmetic_service.Question("mine + owner/math"), Options())


def test_examples_are_forgotten_once_every_job_of_theirs_is_done(catalog: Database):
    task_id, kept = ask(catalog), ask(catalog, keep_examples=True)
    for end, left in ((False, {task_id: True, kept: True}), (True, {task_id: False, kept: True})):
        with catalog.transaction() as session:
            if end:
                session.execute(update(Job).values(state=JobState.DONE, finished_at=func.now()))
            tasks.forget_examples(session)
        assert {
            each: task_service.get(catalog, each, PUBLIC)[0].examples is not None for each in (task_id, kept)
        } == left


def test_nothing_is_left_of_a_task_that_is_deleted(catalog: Database):
    task_id = ask(catalog)
    put(catalog, task_id, np.eye(3))
    task_service.delete(catalog, task_id, PUBLIC)
    with catalog.transaction() as session:
        assert jobs.page(session) == []
        assert models.counts(session)[ModelState.PENDING] == 0
    with pytest.raises(TaskNotFound):
        task_service.get(catalog, task_id, PUBLIC)


def test_a_task_that_is_deleted_while_it_is_read_is_not_found(catalog: Database):
    task_id = ask(catalog)
    with catalog.transaction() as session:
        read = tasks.get(session, task_id)
        assert len(read.runs) == 1
        task_service.delete(catalog, task_id, PUBLIC)
        with pytest.raises(TaskNotFound):
            tasks.jobs_of_one(session, read)


def test_a_worker_finds_the_nearest_without_an_index(catalog: Database):
    with catalog.transaction() as session:
        space = spaces.get(session, SPACE.key)
        homes = {SPACE.feature: space}
        found = task_nearest.nearest(session, homes, {SPACE.feature: np.array([[1, 0.5, 0.0]])}, 2)
    assert [(model.repo_id, round(cosine, 3)) for model, cosine in found] == [
        ("owner/law", 0.894),
        ("owner/math", 0.447),
    ]


def test_a_tasks_model_has_a_source_of_its_own(catalog: Database):
    task_id = ask(catalog)
    [job] = task_service.get(catalog, task_id, PUBLIC)[1].values()
    assert (job.model.source, job.model.repo_id) == (Source.EXAMPLES, f"task:{task_id}@{SPACE.base_repo}")
