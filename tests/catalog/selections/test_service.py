from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import ExamplesNotKept, SelectionNotFound, TaskNotFinished, TaskNotFound, TooManyJobs
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import jobs
from catalog.models import curation
from catalog.models.repository import models
from catalog.selections import repository as selections
from catalog.selections import service as selection_service
from catalog.selections.service import SelectionRequest
from catalog.selections.strategies import Strategy
from catalog.spaces import repository as spaces
from catalog.tables import JobState, Source
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from tests.support import catalog as entries
from tests.support.catalog import BASE, SPACE
from tests.support.tasks import ANONYMOUS, create_task, store_vectors
from tests.support.waiting import LIMIT

ME, YOU = Viewer("me"), Viewer("you")


@pytest.fixture
def catalog(database: Database) -> Database:
    """Three models at right angles, and some that may not be selected."""
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    entries.put(database, "owner/still", [1, 0, 0], no_shift=True)
    entries.put(database, "owner/elsewhere", np.ones(5), space=replace(SPACE, base_repo="wide/base"))
    entries.put_private(database, "owner/secret", [1, 0, 0], "me")
    return database


def finished_task(database: Database, viewer: Viewer = PUBLIC, **more: object) -> int:
    """A task with a vector."""
    task_id = create_task(database, viewer, keep_examples=True, **more)
    store_vectors(database, task_id, [[1, 0.5, 0.1]])
    return task_id


def test_a_selection_is_an_exclusive_job(catalog: Database):
    task_id = finished_task(catalog, name="mine")
    selection, job = selection_service.create(
        catalog, SelectionRequest("mine", strategies=[Strategy.NEAREST, Strategy.NEAREST]), ANONYMOUS, PUBLIC
    )
    assert (selection.task_id, selection.base_repo, selection.strategies) == (task_id, BASE, ["nearest"])
    assert (job.state, job.exclusive, job.base_hint) == (JobState.QUEUED, True, BASE)
    assert (job.model.source, job.model.repo_id) == (Source.SELECTION, f"selection:{selection.id}@{BASE}")
    assert selection_service.list_page(catalog, PUBLIC, before=None, limit=5)[0][0].id == selection.id


def test_a_task_without_its_examples_is_refused(catalog: Database):
    task_id = create_task(catalog)
    store_vectors(catalog, task_id, np.eye(3))
    with pytest.raises(ExamplesNotKept, match="Create the task again"):
        selection_service.create(catalog, SelectionRequest(str(task_id)), ANONYMOUS, PUBLIC)


def test_an_unknown_or_unfinished_task_is_refused(catalog: Database):
    with pytest.raises(TaskNotFound):
        selection_service.create(catalog, SelectionRequest("none"), ANONYMOUS, PUBLIC)
    task_id = create_task(catalog, keep_examples=True)
    with pytest.raises(TaskNotFinished):
        selection_service.create(catalog, SelectionRequest(str(task_id)), ANONYMOUS, PUBLIC)
    store_vectors(catalog, task_id, np.eye(3))
    with pytest.raises(TaskNotFinished, match="other/base"):
        selection_service.create(catalog, SelectionRequest(str(task_id), "other/base"), ANONYMOUS, PUBLIC)


def test_a_task_that_was_measured_before_a_reindex_is_refused(catalog: Database):
    task_id = finished_task(catalog)
    with catalog.transaction() as session:
        spaces.get(session, SPACE.key).serving = False
    with pytest.raises(TaskNotFinished, match="another contract"):
        selection_service.create(catalog, SelectionRequest(str(task_id)), ANONYMOUS, PUBLIC)


def test_a_task_is_not_deleted_while_a_selection_is_created(catalog: Database):
    task_id = finished_task(catalog)
    with ThreadPoolExecutor(1) as pool:
        with catalog.transaction() as session:
            assert tasks.lock(session, task_id)
            deleting = pool.submit(task_service.delete, catalog, task_id, PUBLIC)
            with pytest.raises(TimeoutError):
                deleting.result(timeout=0.3)
        deleting.result(timeout=LIMIT)
    with catalog.transaction() as session:
        assert not tasks.lock(session, task_id)


def test_a_selection_counts_in_the_quota(catalog: Database):
    task_id = finished_task(catalog)
    with pytest.raises(TooManyJobs):
        selection_service.create(catalog, SelectionRequest(str(task_id)), Quota("anonymous", 1), PUBLIC)
    assert selection_service.list_page(catalog, ADMIN, before=None, limit=5) == []


@pytest.mark.parametrize(("whose", "asker"), [(ME, ME), (PUBLIC, ME), (ME, ADMIN)])
def test_a_selection_belongs_to_the_owner_of_the_task_or_of_the_request(
    catalog: Database, whose: Viewer, asker: Viewer
):
    selection, job = selection_service.create(
        catalog, SelectionRequest(str(finished_task(catalog, whose))), ANONYMOUS, asker
    )
    assert job.viewer == "me"
    for viewer in (ME, ADMIN):
        assert selection_service.get(catalog, selection.id, viewer)[0].id == selection.id
    for viewer in (PUBLIC, YOU):
        assert selection_service.list_page(catalog, viewer, before=None, limit=5) == []
        for look in (selection_service.get, selection_service.delete):
            with pytest.raises(SelectionNotFound):
                look(catalog, selection.id, viewer)


def test_deleting_a_selection_deletes_its_job(catalog: Database):
    task_id = finished_task(catalog)
    selection, job = selection_service.create(catalog, SelectionRequest(str(task_id)), ANONYMOUS, PUBLIC)
    selection_service.delete(catalog, selection.id, PUBLIC)
    with catalog.transaction() as session:
        assert job.id not in [each.id for each in jobs.list_page(session)]
    task_service.get(catalog, task_id, PUBLIC)


def test_a_selection_deleted_while_it_is_read_is_not_found(catalog: Database):
    selection, _ = selection_service.create(catalog, SelectionRequest(str(finished_task(catalog))), ANONYMOUS, PUBLIC)
    with catalog.transaction() as session:
        read = selections.get(session, selection.id)
        selection_service.delete(catalog, selection.id, PUBLIC)
        with pytest.raises(SelectionNotFound):
            selections.get_job(session, read)


def test_deleting_a_task_deletes_its_selections(catalog: Database):
    task_id = finished_task(catalog)
    selection, _ = selection_service.create(catalog, SelectionRequest(str(task_id)), ANONYMOUS, PUBLIC)
    task_service.delete(catalog, task_id, PUBLIC)
    with pytest.raises(SelectionNotFound):
        selection_service.get(catalog, selection.id, PUBLIC)
    with catalog.transaction() as session:
        assert jobs.list_page(session) == []


def test_candidates_are_the_public_adapters_of_the_base_nearest_first(catalog: Database):
    with catalog.transaction() as session:
        candidates = selection_service.list_candidates(
            session, BASE, spaces.get(session, SPACE.key), np.array([1, 0.5, 0.1])
        )
        rows = models.get_by_ids(session, candidates.ids.tolist())
    assert [rows[model_id].repo_id for model_id in candidates.ids.tolist()] == ["owner/law", "owner/math", "owner/code"]
    np.testing.assert_allclose(candidates.cosines, np.array([1, 0.5, 0.1]) / np.linalg.norm([1, 0.5, 0.1]), rtol=1e-5)
    np.testing.assert_allclose(candidates.pool, np.eye(3), atol=1e-6)


def test_candidates_have_all_team_tags_of_the_selection(catalog: Database):
    curation.change_tags(catalog, "owner/math", add=["prod", "legal"], remove=[], viewer=ADMIN)
    curation.change_tags(catalog, "owner/law", add=["prod"], remove=[], viewer=ADMIN)
    with catalog.transaction() as session:
        space = spaces.get(session, SPACE.key)
        candidates = selection_service.list_candidates(session, BASE, space, np.ones(3), ["prod", "legal"])
        rows = models.get_by_ids(session, candidates.ids.tolist())
    assert [row.repo_id for row in rows.values()] == ["owner/math"]


def test_there_may_be_no_candidates(database: Database):
    entries.put_private(database, "owner/secret", [1, 0, 0], "me")
    with database.transaction() as session:
        space = spaces.get(session, SPACE.key, ADMIN)
        assert len(selection_service.list_candidates(session, BASE, space, np.array([1, 0, 0]))) == 0
