from __future__ import annotations

import hashlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, text, update

from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import ArchiveNotFound, NotRetriable, SpaceNotFound
from catalog.jobs import control as job_control
from catalog.jobs.repository import claims, jobs
from catalog.jobs.submissions import submit_folder, submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.tables import Job, JobState, ModelState, Source
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from catalog.tasks.examples import Example
from catalog.tasks.service import TaskRequest
from catalog.tasks.training_config import TrainingConfig
from catalog.vectors.repository import vectors
from tests.support import pico
from tests.support.cancelling import cancel_at_first_report
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.pipeline import assemble, make_pipeline
from tests.support.task_runs import ANONYMOUS, EXAMPLES, QUICK
from tests.support.waiting import wait_until
from workers.ingest.job_runner import JobRunner
from workers.ingest.pipeline import Pipeline
from workers.tasks.runner import TaskRunner, rank_correlation


@pytest.fixture
def pipeline(database: Database, pico_base: Path, tmp_path: Path) -> Pipeline:
    """A pipeline that has indexed two models."""
    pipeline = make_pipeline(database, pico_base, tmp_path)
    for number in range(2):
        pipeline.ingest(submit_folder(database, pico.make_adapter(tmp_path / f"m{number}", seed=number)).id)
    return pipeline


def create_task(database: Database, viewer: Viewer = PUBLIC, **settings: object) -> tuple[int, Job]:
    """Create a task that trains quickly; its id and its only job."""
    request = TaskRequest(EXAMPLES, training_config=QUICK, **settings)
    task, jobs_by_run = task_service.create(database, request, ANONYMOUS, viewer)
    [job] = jobs_by_run.values()
    return task.id, job


def read_task(database: Database, task_id: int) -> tuple[object, Job, np.ndarray | None]:
    task, jobs_by_run = task_service.get(database, task_id, ADMIN)
    [job] = jobs_by_run.values()
    with database.transaction() as session:
        measured = tasks.get_vectors(session, task.runs[0].id)
    return task, job, measured[0][1] if measured else None


def test_task_stores_the_vectors_of_all_examples_and_of_halves(database: Database, pipeline: Pipeline):
    task_id, job = create_task(database)
    assert pipeline.ingest(job.id) == 1
    task, job, samples = read_task(database, task_id)
    assert (job.state, job.error_code, job.progress) == (JobState.DONE, None, 1)
    assert samples.shape == (5, pico.HIDDEN)
    assert len({vector.tobytes() for vector in samples}) == 5
    assert len(task.runs[0].metrics["losses"]) == 5


def test_examples_are_deleted_after_the_job(database: Database, pipeline: Pipeline):
    task_id, job = create_task(database)
    assert read_task(database, task_id)[0].examples is not None
    pipeline.ingest(job.id)
    assert read_task(database, task_id)[0].examples is None


def test_examples_are_kept_with_keep_examples(database: Database, pipeline: Pipeline):
    task_id, job = create_task(database, keep_examples=True)
    pipeline.ingest(job.id)
    assert [Example(**row) for row in read_task(database, task_id)[0].examples] == EXAMPLES


def test_adapter_is_stored_with_keep_adapter(database: Database, pipeline: Pipeline, tmp_path: Path):
    task_id, job = create_task(database, keep_adapter=True)
    pipeline.ingest(job.id)
    samples = read_task(database, task_id)[2]
    download = task_service.get_adapter(database, task_id, None, ADMIN)
    content = b"".join(download.pieces)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (download.size, download.sha256)
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "adapter")
    assert "from 0.01 to 0,\n2 steps of 8 examples" in (tmp_path / "adapter" / "README.md").read_text()
    assert f"# Task {task_id}\n" in (tmp_path / "adapter" / "README.md").read_text()
    pipeline.ingest(submit_folder(database, tmp_path / "adapter").id)  # the adapter is the one that was measured
    with database.transaction() as session:
        stored = vectors.get_encodings(session, ["local/adapter"], viewer=PUBLIC)["local/adapter"]
    assert np.allclose(stored.vector, samples[0], rtol=1e-5)


def test_no_adapter_is_stored_without_keep_adapter(database: Database, pipeline: Pipeline):
    task_id, job = create_task(database)
    pipeline.ingest(job.id)
    with pytest.raises(ArchiveNotFound):
        task_service.get_adapter(database, task_id, None, ADMIN)


def test_task_is_not_listed_as_a_model(database: Database, pipeline: Pipeline):
    _, job = create_task(database)
    pipeline.ingest(job.id)
    with database.transaction() as session:
        for viewer in (PUBLIC, ADMIN):
            assert [model.repo_id for model in models.list_page(session, viewer=viewer)] == ["local/m0", "local/m1"]
        assert models.count_by_state(session)[ModelState.INDEXED] == 2


def test_the_nearest_models_and_the_base_are_scored_on_the_holdout(database: Database, pipeline: Pipeline):
    task_id, job = create_task(database, verify=2)
    pipeline.ingest(job.id)
    metrics = read_task(database, task_id)[0].runs[0].metrics
    assert metrics["holdout_examples"] == 2
    assert {score["repo_id"] for score in metrics["scores"]} == {"local/m0", "local/m1"}
    assert all(score["loss"] > 0 and score["error"] is None for score in metrics["scores"])
    assert metrics["scores"][0]["similarity"] >= metrics["scores"][1]["similarity"]
    assert metrics["base_loss"] > 0


def test_model_that_cannot_be_read_is_scored_with_an_error(database: Database, pipeline: Pipeline, tmp_path: Path):
    (tmp_path / "m0" / "adapter_model.safetensors").unlink()
    task_id, job = create_task(database, verify=2)
    pipeline.ingest(job.id)
    task, job, _ = read_task(database, task_id)
    errors = {score["repo_id"]: score["error"] for score in task.runs[0].metrics["scores"]}
    assert (job.state, errors["local/m1"]) == (JobState.DONE, None)
    assert errors["local/m0"] is not None


def test_unavailable_hub_gives_errors_as_scores_and_the_task_succeeds(
    database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub
):
    pipeline = make_pipeline(database, pico_base, tmp_path, endpoint=scripted_hub.url)
    for number in range(2):
        folder = pico.make_adapter(tmp_path / f"m{number}", seed=number)
        scripted_hub.publish(f"o/m{number}", {path.name: path.read_bytes() for path in folder.iterdir()})
        pipeline.ingest(submit_repo(database, RepoRef(f"o/m{number}")).id)
    scripted_hub.intercept = lambda path: Answer(500)
    task_id, job = create_task(database, verify=2)
    pipeline.ingest(job.id)
    task, job, samples = read_task(database, task_id)
    assert (job.state, len(samples)) == (JobState.DONE, 5)
    assert {score["error"] for score in task.runs[0].metrics["scores"]} == {"hub_unavailable"}


def test_task_runs_exclusively_and_other_jobs_run_after_it(database: Database, pico_base: Path, tmp_path: Path):
    assembled = assemble(database, pico_base, tmp_path)
    pipeline, worker = assembled.pipeline, assembled.worker_id
    for number in range(2):
        pipeline.ingest(submit_folder(database, pico.make_adapter(tmp_path / f"m{number}", seed=number)).id)
    other = submit_folder(database, pico.make_adapter(tmp_path / "m2", seed=2))
    _, job = create_task(database)
    with database.transaction() as session:
        assert [claimed.id for claimed in claims.claim(session, job.id, worker, 8)] == [job.id]
        assert claims.find_next_due(session, [], 120).job_id == other.id
        claims.requeue(session, [job.id], worker, pico.BASE_ID)
    assert pipeline.ingest(job.id) == 2
    with database.transaction() as session:
        assert {jobs.get(session, row.id).state for row in (job, other)} == {JobState.DONE}


@pytest.mark.usefixtures("pipeline")
def test_cancelled_task_stores_nothing(database: Database, pico_base: Path, tmp_path: Path):
    def cancelling(*parts: Any) -> dict[Source, JobRunner]:
        return {Source.EXAMPLES: TaskRunner(*parts, reporter=cancel_at_first_report)}

    task_id, job = create_task(database)
    make_pipeline(database, pico_base, tmp_path, runners=cancelling).ingest(job.id)
    _, job, samples = read_task(database, task_id)
    assert (job.state, samples) == (JobState.CANCELLED, None)


def test_cancelled_task_keeps_its_examples_for_a_retry(database: Database, pipeline: Pipeline):
    task_id, job = create_task(database)
    job_control.cancel(database, job.id)
    with database.transaction() as session:
        assert tasks.delete_examples(session) == 0
    job_control.retry(database, job.id)
    pipeline.ingest(job.id)
    task, job, _ = read_task(database, task_id)
    assert (job.state, task.examples) == (JobState.DONE, None)


def test_task_without_examples_cannot_be_retried(database: Database, pipeline: Pipeline):
    task_id, job = create_task(database)
    job_control.cancel(database, job.id)
    with database.transaction() as session:
        session.execute(update(Job).values(finished_at=func.now() - text("interval '8 days'")))
        assert tasks.delete_examples(session) == 1
    with pytest.raises(NotRetriable, match=f"examples of task {task_id} were deleted"):
        job_control.retry(database, job.id)
    with database.transaction() as session:
        assert jobs.get(session, job.id).state == JobState.CANCELLED


def test_stopping_worker_interrupts_training_and_releases_the_job(database: Database, pipeline: Pipeline):
    config = TrainingConfig(learning_rate=1e-4, batch_size=1, epochs=250, max_steps=2_000, max_tokens=300)
    _, jobs_by_run = task_service.create(database, TaskRequest(EXAMPLES, training_config=config), ANONYMOUS, PUBLIC)
    [job] = jobs_by_run.values()
    with ThreadPoolExecutor(1) as pool:
        ingest = pool.submit(pipeline.ingest, job.id)
        wait_until(lambda: get_job(database, job.id).progress > 0, "the training has begun")
        pipeline.stop()
        ingest.result()
    released = get_job(database, job.id)
    assert (released.state, released.worker_deaths, released.worker_id) == (JobState.QUEUED, 0, None)
    assert [attempt["outcome"] for attempt in released.history] == ["released"]
    assert pipeline.ingest(job.id) == 0  # a stopped pipeline claims no jobs


def get_job(database: Database, job_id: int) -> Job:
    with database.transaction() as session:
        return jobs.get(session, job_id, ADMIN)


def test_changed_base_fails_with_base_unresolved(database: Database, pipeline: Pipeline, pico_base: Path):
    task_id, job = create_task(database)
    folder = pico_base / pico.BASE_ID
    config = (folder / "config.json").read_bytes()
    try:
        (folder / "config.json").write_bytes(config + b"\n")
        pipeline.ingest(job.id)
    finally:
        (folder / "config.json").write_bytes(config)
    _, job, _ = read_task(database, task_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "base_unresolved")


def test_base_without_indexed_models_raises_space_not_found(database: Database, pipeline: Pipeline):
    with pytest.raises(SpaceNotFound, match="pico/other"):
        create_task(database, base="pico/other")


def test_job_of_a_task_belongs_to_its_viewer(database: Database, pipeline: Pipeline):
    task_id, job = create_task(database, Viewer("me"))
    assert job.viewer == "me"
    pipeline.ingest(job.id)
    assert read_task(database, task_id)[1].state == JobState.DONE


def test_equal_losses_have_no_rank_correlation(database: Database, pipeline: Pipeline, tmp_path: Path):
    for number in range(2, 4):
        pipeline.ingest(submit_folder(database, pico.make_adapter(tmp_path / f"m{number}", seed=0)).id)
    (tmp_path / "m1" / "adapter_model.safetensors").unlink()
    task_id, job = create_task(database, verify=4)
    pipeline.ingest(job.id)
    task, job, _ = read_task(database, task_id)
    assert (job.state, job.error_code) == (JobState.DONE, None)
    assert len({score["loss"] for score in task.runs[0].metrics["scores"] if score["loss"]}) == 1
    assert task.runs[0].metrics["rank_correlation"] is None


def test_rank_correlation_depends_on_the_order_alone():
    scores = [{"similarity": similarity, "loss": loss} for similarity, loss in ((0.9, 1.0), (0.5, 2.0), (0.1, 2.5))]
    assert rank_correlation(scores) == 1
    assert rank_correlation([*scores, {"similarity": 0.0, "loss": None}]) == 1
    assert rank_correlation(scores[:2]) is None
