from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from catalog.auth.viewer import EVERYTHING, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import ExamplesNotKept, SelectionNotFound, TaskNotDone, TaskNotFound, TooManyJobs
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.selections import repository as selections
from catalog.selections import service as selection_service
from catalog.selections.service import Wish
from catalog.selections.strategies import Arm
from catalog.spaces import repository as spaces
from catalog.tables import JobState, Source
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from tests.support import catalog as entries
from tests.support.catalog import BASE, SPACE
from tests.support.tasks import NOBODY, ask, put
from tests.support.waiting import LIMIT

ME, YOU = Viewer("me"), Viewer("you")


@pytest.fixture
def catalog(database: Database) -> Database:
    """Three models at right angles, and some that may not be chosen."""
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    entries.put(database, "owner/still", [1, 0, 0], no_shift=True)
    entries.put(database, "owner/elsewhere", np.ones(5), space=replace(SPACE, base_repo="wide/base"))
    entries.put_private(database, "owner/secret", [1, 0, 0], "me")
    return database


def done(database: Database, viewer: Viewer = PUBLIC, **more: object) -> int:
    """A task with a vector."""
    task_id = ask(database, viewer, keep_examples=True, **more)
    put(database, task_id, [[1, 0.5, 0.1]])
    return task_id


def test_a_selection_is_a_job_for_a_worker_alone(catalog: Database):
    task_id = done(catalog, name="mine")
    selection, job = selection_service.ask(catalog, Wish("mine", arms=[Arm.RANDOM, Arm.RANDOM]), NOBODY, PUBLIC)
    assert (selection.task_id, selection.base_repo, selection.arms) == (task_id, BASE, ["random"])
    assert (job.state, job.alone, job.base_hint) == (JobState.QUEUED, True, BASE)
    assert (job.model.source, job.model.repo_id) == (Source.SELECTION, f"selection:{selection.id}@{BASE}")
    assert selection_service.page(catalog, PUBLIC, before=None, limit=5)[0][0].id == selection.id


def test_examples_have_to_be_kept(catalog: Database):
    task_id = ask(catalog)
    put(catalog, task_id, np.eye(3))
    with pytest.raises(ExamplesNotKept, match="ask the task again"):
        selection_service.ask(catalog, Wish(str(task_id)), NOBODY, PUBLIC)


def test_a_task_has_to_be_there_and_done(catalog: Database):
    with pytest.raises(TaskNotFound):
        selection_service.ask(catalog, Wish("none"), NOBODY, PUBLIC)
    task_id = ask(catalog, keep_examples=True)
    with pytest.raises(TaskNotDone):
        selection_service.ask(catalog, Wish(str(task_id)), NOBODY, PUBLIC)
    put(catalog, task_id, np.eye(3))
    with pytest.raises(TaskNotDone, match="other/base"):
        selection_service.ask(catalog, Wish(str(task_id), "other/base"), NOBODY, PUBLIC)


def test_a_task_that_was_measured_before_a_reindex_is_to_be_asked_again(catalog: Database):
    task_id = done(catalog)
    with catalog.transaction() as session:
        spaces.get(session, SPACE.key).serving = False
    with pytest.raises(TaskNotDone, match="another contract"):
        selection_service.ask(catalog, Wish(str(task_id)), NOBODY, PUBLIC)


def test_a_task_is_not_deleted_while_a_selection_is_asked_of_it(catalog: Database):
    task_id = done(catalog)
    with ThreadPoolExecutor(1) as pool:
        with catalog.transaction() as session:
            assert tasks.hold(session, task_id)
            deleting = pool.submit(task_service.delete, catalog, task_id, PUBLIC)
            with pytest.raises(TimeoutError):
                deleting.result(timeout=0.3)
        deleting.result(timeout=LIMIT)
    with catalog.transaction() as session:
        assert not tasks.hold(session, task_id)


def test_it_counts_in_the_quota(catalog: Database):
    task_id = done(catalog)
    with pytest.raises(TooManyJobs):
        selection_service.ask(catalog, Wish(str(task_id)), Quota("anonymous", 1), PUBLIC)
    assert selection_service.page(catalog, EVERYTHING, before=None, limit=5) == []


@pytest.mark.parametrize(("whose", "asker"), [(ME, ME), (PUBLIC, ME), (ME, EVERYTHING)])
def test_it_is_shown_to_whom_the_task_is_or_who_asked(catalog: Database, whose: Viewer, asker: Viewer):
    selection, job = selection_service.ask(catalog, Wish(str(done(catalog, whose))), NOBODY, asker)
    assert job.viewer == "me"
    for viewer in (ME, EVERYTHING):
        assert selection_service.get(catalog, selection.id, viewer)[0].id == selection.id
    for viewer in (PUBLIC, YOU):
        assert selection_service.page(catalog, viewer, before=None, limit=5) == []
        for look in (selection_service.get, selection_service.delete):
            with pytest.raises(SelectionNotFound):
                look(catalog, selection.id, viewer)


def test_nothing_is_left_of_what_is_deleted(catalog: Database):
    task_id = done(catalog)
    selection, job = selection_service.ask(catalog, Wish(str(task_id)), NOBODY, PUBLIC)
    selection_service.delete(catalog, selection.id, PUBLIC)
    with catalog.transaction() as session:
        assert job.id not in [each.id for each in jobs.page(session)]
    task_service.get(catalog, task_id, PUBLIC)


def test_one_deleted_while_it_is_read_is_not_found(catalog: Database):
    selection, _ = selection_service.ask(catalog, Wish(str(done(catalog))), NOBODY, PUBLIC)
    with catalog.transaction() as session:
        read = selections.get(session, selection.id)
        selection_service.delete(catalog, selection.id, PUBLIC)
        with pytest.raises(SelectionNotFound):
            selections.job_of(session, read)


def test_it_goes_with_its_task(catalog: Database):
    task_id = done(catalog)
    selection, _ = selection_service.ask(catalog, Wish(str(task_id)), NOBODY, PUBLIC)
    task_service.delete(catalog, task_id, PUBLIC)
    with pytest.raises(SelectionNotFound):
        selection_service.get(catalog, selection.id, PUBLIC)
    with catalog.transaction() as session:
        assert jobs.page(session) == []


def test_candidates_are_public_adapters_of_the_base_the_nearest_first(catalog: Database):
    with catalog.transaction() as session:
        found = selection_service.candidates(session, BASE, spaces.get(session, SPACE.key), np.array([1, 0.5, 0.1]))
        named = models.by_ids(session, found.ids.tolist())
    assert [named[model_id].repo_id for model_id in found.ids.tolist()] == ["owner/law", "owner/math", "owner/code"]
    np.testing.assert_allclose(found.cosines, np.array([1, 0.5, 0.1]) / np.linalg.norm([1, 0.5, 0.1]), rtol=1e-5)
    np.testing.assert_allclose(found.near, np.eye(3), atol=1e-6)


def test_there_may_be_no_candidates(database: Database):
    entries.put_private(database, "owner/secret", [1, 0, 0], "me")
    with database.transaction() as session:
        space = spaces.get(session, SPACE.key, EVERYTHING)
        assert len(selection_service.candidates(session, BASE, space, np.array([1, 0, 0]))) == 0
