from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import delete, func, select, text

from catalog.archives import repository as archives
from catalog.arithmetic import service as arithmetic
from catalog.auth.viewer import ADMIN, PUBLIC
from catalog.database import Database
from catalog.errors import ArchiveNotFound, HubUnavailable, MergeNotFound, Quarantined, TaskNotFound, TermNotFound
from catalog.jobs.processes import identity
from catalog.jobs.repository import attempts, jobs, workers
from catalog.jobs.submissions import submit_repo
from catalog.maintenance import repository, retention
from catalog.maintenance.repository import KINDS
from catalog.merges import service as merge_service
from catalog.merges.methods import MergeSpec
from catalog.models.repo_ref import RepoRef
from catalog.selections import service as selection_service
from catalog.selections.service import SelectionRequest
from catalog.settings import settings
from catalog.tables import (
    Archive,
    Base,
    Job,
    JobState,
    Merge,
    Model,
    Reindex,
    Selection,
    Task,
    TaskVector,
    Worker,
)
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from tests.support import catalog as entries
from tests.support.tasks import ANONYMOUS, create_task, store_vectors
from tests.support.waiting import wait_until

OLD = "100 days"
TIMES = {
    "jobs": ("created_at", "finished_at"),
    "models": ("created_at",),
    "tasks": ("created_at",),
    "merges": ("created_at",),
    "selections": ("created_at",),
    "archives": ("created_at",),
    "workers": ("started_at", "heartbeat_at"),
    "job_events": ("at",),
    "audit_entries": ("at",),
}


@pytest.fixture
def worker(database: Database) -> int:
    return entries.put_worker(database)


def age(database: Database, *tables: str, by: str = OLD) -> None:
    """Move the times of all rows of tables into the past."""
    with database.transaction() as session:
        for table in tables:
            moved = ", ".join(f"{column} = {column} - interval '{by}'" for column in TIMES[table])
            session.execute(text(f"UPDATE {table} SET {moved}"))


def sweep(database: Database, max_pages: int = 20) -> dict[str, int]:
    """Delete what has expired, and return how many rows of each kind that were."""
    expected = {report.kind.name: report.expired for report in retention.report(database, policy())}
    swept = retention.sweep(database, policy(), max_pages)
    deleted = {kind: count for kind, count in swept.deleted.items() if count}
    if swept.complete:  # the kinds before may have released rows of those after them
        assert {kind: count for kind, count in expected.items() if count}.items() <= deleted.items()
    return deleted


def policy() -> retention.Retention:
    return retention.retention_of(settings())


def count(database: Database, table: type[Base]) -> int:
    with database.transaction() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def end_job(database: Database, job_id: int, worker_id: int, state: JobState = JobState.DONE) -> None:
    entries.claim(database, job_id, worker_id)
    with database.transaction() as session:
        if state == JobState.DONE:
            assert attempts.finish(session, job_id, worker_id, "sha")
        else:
            assert attempts.fail(session, job_id, worker_id, HubUnavailable("Away."))


def job_ids(database: Database) -> list[int]:
    with database.transaction() as session:
        return list(session.scalars(select(Job.id).order_by(Job.id)))


def put_ended_jobs(database: Database, worker_id: int, repo_id: str, number: int) -> list[int]:
    """Store a measured model with jobs that are done."""
    entries.put(database, repo_id, [1.0, 0.0])
    ids = []
    for _ in range(number):
        ids.append(entries.put_job(database, repo_id).id)
        end_job(database, ids[-1], worker_id)
    return ids


def test_old_jobs_go_but_the_newest_of_each_model(database: Database, worker: int):
    first = put_ended_jobs(database, worker, "a/first", 3)
    second = put_ended_jobs(database, worker, "a/second", 1)
    age(database, "jobs")
    assert sweep(database) == {"jobs": 2}
    assert job_ids(database) == [first[-1], *second]


def test_recent_jobs_stay(database: Database, worker: int):
    ids = put_ended_jobs(database, worker, "a/model", 3)
    age(database, "jobs", by="89 days")
    assert sweep(database) == {}
    assert job_ids(database) == ids


def test_queued_and_running_jobs_stay_however_old(database: Database, worker: int):
    ids = [entries.put_job(database, "a/model", base=base).id for base in ("o/a", "o/b", "o/c")]
    entries.claim(database, ids[0], worker)
    end_job(database, ids[1], entries.put_worker(database))
    age(database, "jobs")
    assert sweep(database) == {"jobs": 1}
    assert job_ids(database) == [ids[0], ids[2]]


def test_quarantined_jobs_stay(database: Database, worker: int):
    ids = put_ended_jobs(database, worker, "a/model", 2)
    with database.transaction() as session:
        values = {"state": JobState.FAILED, "error_code": Quarantined.code}
        session.execute(
            text("UPDATE jobs SET state = :state, error_code = :error_code WHERE id = :id"), {**values, "id": ids[0]}
        )
    age(database, "jobs")
    assert sweep(database) == {}


def test_jobs_of_an_active_reindex_stay(database: Database, worker: int):
    ids = put_ended_jobs(database, worker, "a/model", 2)
    with database.transaction() as session:
        session.add(Reindex(id=7, selection={}))
        session.flush()
        session.execute(text("UPDATE jobs SET reindex_id = 7 WHERE id = :id"), {"id": ids[0]})
    age(database, "jobs")
    assert sweep(database) == {}
    with database.transaction() as session:
        session.execute(text("UPDATE reindexes SET state = 'cancelled'"))
    assert sweep(database) == {"jobs": 1}


@pytest.fixture
def measured(database: Database, worker: int) -> int:
    """A task whose examples were kept, with vectors."""
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    task_id = create_task(database, name="mine", keep_examples=True, keep_adapter=True)
    store_vectors(database, task_id, np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]]))
    with database.transaction() as session:
        [job] = tasks.get_task_jobs(session, tasks.get(session, task_id)).values()
    end_job(database, job.id, worker)
    with database.transaction() as session:
        archives.store(session, job.model_id, io.BytesIO(b"zip"))
    return task_id


def select_for(database: Database, task_id: int) -> int:
    selection, job = selection_service.create(database, SelectionRequest(str(task_id), count=2), ANONYMOUS, PUBLIC)
    with database.transaction() as session:
        assert jobs.cancel(session, job.id)
    return selection.id


def test_tasks_go_with_their_hidden_models_jobs_vectors_and_archives(database: Database, measured: int):
    age(database, "tasks", "jobs")
    assert sweep(database) == {"tasks": 1}
    assert [count(database, table) for table in (Task, TaskVector, Archive, Job)] == [0, 0, 0, 0]
    assert count(database, Model) == 3  # those that are measured
    with pytest.raises(TaskNotFound, match="There is no task"):
        task_service.get(database, measured, PUBLIC)


def test_task_of_a_queued_job_stays(database: Database):
    entries.put(database, "owner/law", [1.0, 0.0, 0.0])
    create_task(database)
    age(database, "tasks", "jobs")
    assert sweep(database) == {}


def test_task_whose_job_was_retried_later_stays(database: Database, measured: int):
    age(database, "tasks")  # its job has just ended
    assert sweep(database) == {}
    assert task_service.get(database, measured, PUBLIC)[0].id == measured


def test_task_with_a_younger_selection_stays(database: Database, measured: int):
    age(database, "tasks", "jobs")
    selection_id = select_for(database, measured)
    assert sweep(database) == {}
    assert selection_service.get(database, selection_id, PUBLIC)[0].task_id == measured


def test_old_selection_goes_before_its_task(database: Database, measured: int):
    select_for(database, measured)
    age(database, "tasks", "jobs", "selections")
    assert sweep(database) == {"selections": 1, "tasks": 1}
    assert (count(database, Selection), count(database, Job)) == (0, 0)


def test_vector_that_was_saved_from_a_task_stays_and_its_name_says_what_is_missing(database: Database, measured: int):
    saved, _ = arithmetic.store_expression(database, "kept", "task:mine", space_key=None, unit_terms=False, note=None)
    age(database, "tasks", "jobs")
    sweep(database)
    stored, _ = arithmetic.get(database, "kept", PUBLIC)
    assert (stored.expression, stored.data) == (saved.expression, saved.data)
    with pytest.raises(TermNotFound, match="There is no task named"):
        arithmetic.store_expression(database, "again", "task:mine", space_key=None, unit_terms=False, note=None)


def test_merges_go_with_their_archives(database: Database, worker: int):
    for number, name in enumerate(("law", "math")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    merge, job = merge_service.create(
        database, MergeSpec({"owner/law": 1.0, "owner/math": 1.0}), "mine", ANONYMOUS, PUBLIC
    )
    end_job(database, job.id, worker)
    with database.transaction() as session:
        archives.store(session, job.model_id, io.BytesIO(b"zip"))
    age(database, "merges", "jobs")
    assert sweep(database) == {"merges": 1}
    assert [count(database, table) for table in (Merge, Archive, Job)] == [0, 0, 0]
    with pytest.raises(MergeNotFound, match="There is no merge"):
        merge_service.get_adapter(database, merge.id, PUBLIC)


def test_archive_goes_before_its_task(database: Database, measured: int):
    age(database, "archives", by="31 days")
    before = {report.kind.name: report for report in retention.report(database, policy())}["archives"]
    assert (before.rows, before.expired, before.expired_bytes) == (1, 1, 3)
    assert sweep(database) == {"archives": 1}
    with pytest.raises(ArchiveNotFound, match="no longer stored"):
        task_service.get_adapter(database, measured, None, PUBLIC)


def put_failed(database: Database, worker_id: int, repo_id: str) -> int:
    """Submit a model whose job fails; returns the id of the model."""
    job = entries.put_job(database, repo_id)
    end_job(database, job.id, worker_id, JobState.FAILED)
    with database.transaction() as session:
        session.execute(text("UPDATE models SET state = 'failed' WHERE id = :id"), {"id": job.model_id})
    return job.model_id


def test_models_that_were_never_measured_go(database: Database, worker: int):
    put_failed(database, worker, "nobody/nothing")
    entries.put(database, "owner/measured", [1.0, 0.0])
    age(database, "models", "jobs")
    assert sweep(database) == {"unmeasured_models": 1}
    with database.transaction() as session:
        assert session.scalars(select(Model.repo_id)).all() == ["owner/measured"]
        assert session.scalars(select(Job.id)).all() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE models SET removed_at = now()",
        "UPDATE models SET hub_sha = 'seen by a crawl'",
        "UPDATE jobs SET error_code = 'quarantined'",
        "UPDATE jobs SET finished_at = now()",
        "UPDATE jobs SET state = 'queued', finished_at = NULL",
        "INSERT INTO team_tags (model_id, tag, author) SELECT id, 'ours', 'us' FROM models",
        "INSERT INTO aliases (name, model_id, private, author) SELECT 'ours', id, false, 'us' FROM models",
    ],
)
def test_models_that_are_known_or_quarantined_stay(database: Database, worker: int, change: str):
    put_failed(database, worker, "nobody/nothing")
    age(database, "models", "jobs")
    with database.transaction() as session:
        session.execute(text(change))
    assert sweep(database) == {}
    assert count(database, Model) == 1


def test_model_that_is_submitted_meanwhile_stays(database: Database, worker: int):
    put_failed(database, worker, "nobody/nothing")
    age(database, "models", "jobs")
    with database.transaction() as session:
        model = session.scalars(select(Model)).one()
        jobs.submit(session, model, None)
        assert retention.sweep(database, policy()).deleted["unmeasured_models"] == 0
    assert count(database, Job) == 2


def test_submission_of_a_model_that_is_deleted_meanwhile_creates_it_again(database: Database, worker: int):
    old = put_failed(database, worker, "nobody/nothing")
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            session.execute(delete(Model).where(Model.id == old))
            submission = pool.submit(submit_repo, database, RepoRef("nobody/nothing"))
            wait_until(lambda: is_waiting_for_a_lock(database), "the submission waits for the deletion")
        job = submission.result()
    assert job.model_id != old
    assert job.state == JobState.QUEUED


def is_waiting_for_a_lock(database: Database) -> bool:
    query = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database WHERE NOT granted"
    with database.transaction() as session:
        waiting = session.execute(text(query)).scalar_one()
        blocked = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(waiting or session.execute(blocked).scalar_one())


def test_dead_workers_go_and_their_jobs_stay(database: Database, worker: int):
    [job_id] = put_ended_jobs(database, worker, "a/model", 1)
    with database.transaction() as session:
        workers.mark_stopped(session, worker)
    silent = entries.put_worker(database)
    age(database, "workers", by="8 days")
    alive = entries.put_worker(database)
    assert sweep(database) == {"workers": 2}
    with database.transaction() as session:
        assert session.scalars(select(Worker.id)).all() == [alive]
        job = jobs.get(session, job_id, ADMIN)
        assert job.worker_id is None
        assert job.history[0]["worker_id"] == worker
    assert silent not in (worker, alive)


def test_worker_with_running_jobs_stays_until_they_are_requeued(database: Database, worker: int):
    entries.claim(database, entries.put_job(database, "a/model").id, worker)
    age(database, "workers")
    assert sweep(database) == {}


def test_worker_of_this_process_stays(database: Database):
    with database.transaction() as session:
        workers.register(session, "here", 1, "cpu", identity())
    age(database, "workers")
    assert sweep(database) == {}


def test_events_and_acts_go(database: Database):
    entries.put_job(database, "a/model")
    with database.transaction() as session:
        session.execute(
            text("INSERT INTO audit_entries (actor, action, target, address, outcome) VALUES ('', '', '', '', '')")
        )
    age(database, "job_events", "audit_entries")
    assert sweep(database) == {"job_events": 1, "audit_entries": 1}


def put_old_workers(database: Database, number: int) -> None:
    statement = (
        "INSERT INTO workers (host, pid, device, heartbeat_at) "
        "SELECT 'away', n, 'cpu', now() - interval '8 days' FROM generate_series(1, :number) AS n"
    )
    with database.transaction() as session:
        session.execute(text(statement), {"number": number})


def test_rows_are_deleted_page_by_page_in_transactions_of_their_own(database: Database, statements: list[str]):
    put_old_workers(database, 25)
    assert retention.sweep(database, policy()).deleted["workers"] == 25
    assert len([statement for statement in statements if statement.startswith("DELETE FROM workers")]) == 3


def test_sweep_that_reaches_its_number_of_pages_is_not_complete(database: Database):
    put_old_workers(database, 25)
    first, second = (retention.sweep(database, policy(), max_pages=2) for _ in range(2))
    assert (first.deleted["workers"], first.complete) == (20, False)
    assert (second.deleted["workers"], second.complete) == (5, True)


def test_rows_that_another_sweep_deletes_are_left_to_it(database: Database):
    put_old_workers(database, 5)
    [kind] = [kind for kind in KINDS if kind.name == "workers"]
    with database.transaction() as session:
        assert repository.delete_page(session, kind, 1.0, 0)[0] == 5
        assert retention.sweep(database, policy()).deleted["workers"] == 0


def test_every_kind_of_the_report_names_a_setting_and_its_tables(database: Database):
    reports = retention.report(database, policy())
    assert all(report.bytes > 0 and report.rows == 0 and report.oldest is None for report in reports)
    assert all(report.kind.setting in type(settings()).model_fields for report in reports)
