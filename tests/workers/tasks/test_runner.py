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

from catalog.auth.viewer import EVERYTHING, PUBLIC, Viewer
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
from catalog.tasks.service import Question
from catalog.tasks.training_config import Recipe
from catalog.vectors.repository import vectors
from tests.support import pico
from tests.support.cancelling import cancel_at_first_report
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.pipeline import assemble, make_pipeline
from tests.support.task_runs import EXAMPLES, NOBODY, QUICK
from tests.support.waiting import wait_until
from workers.ingest.exclusive import JobRunner
from workers.ingest.pipeline import Pipeline
from workers.tasks.runner import TaskRunner, agreement


@pytest.fixture
def pipeline(database: Database, pico_base: Path, tmp_path: Path) -> Pipeline:
    """With two models indexed."""
    made = make_pipeline(database, pico_base, tmp_path)
    for number in range(2):
        made.ingest(submit_folder(database, pico.make_adapter(tmp_path / f"m{number}", seed=number)).id)
    return made


def ask(database: Database, viewer: Viewer = PUBLIC, **settings: object) -> tuple[int, Job]:
    """A quick task's number, and its only job."""
    task, of_runs = task_service.ask(database, Question(EXAMPLES, recipe=QUICK, **settings), NOBODY, viewer)
    [job] = of_runs.values()
    return task.id, job


def look(database: Database, task_id: int) -> tuple[object, Job, np.ndarray | None]:
    task, of_runs = task_service.get(database, task_id, EVERYTHING)
    [job] = of_runs.values()
    with database.transaction() as session:
        measured = tasks.vectors(session, task.runs[0].id)
    return task, job, measured[0][1] if measured else None


def test_a_task_becomes_vectors(database: Database, pipeline: Pipeline):
    task_id, job = ask(database)
    assert pipeline.ingest(job.id) == 1
    task, job, found = look(database, task_id)
    assert (job.state, job.error_code, job.progress) == (JobState.DONE, None, 1)
    assert found.shape == (5, pico.HIDDEN)
    assert len({each.tobytes() for each in found}) == 5
    assert len(task.runs[0].figures["losses"]) == 5


def test_its_examples_leave_with_its_job(database: Database, pipeline: Pipeline):
    task_id, job = ask(database)
    assert look(database, task_id)[0].examples is not None
    pipeline.ingest(job.id)
    assert look(database, task_id)[0].examples is None


def test_its_examples_are_kept_where_that_is_asked_for(database: Database, pipeline: Pipeline):
    task_id, job = ask(database, keep_examples=True)
    pipeline.ingest(job.id)
    assert [Example(**each) for each in look(database, task_id)[0].examples] == EXAMPLES


def test_its_adapter_is_kept_where_that_is_asked_for(database: Database, pipeline: Pipeline, tmp_path: Path):
    task_id, job = ask(database, keep_adapter=True)
    pipeline.ingest(job.id)
    found = look(database, task_id)[2]
    download = task_service.adapter(database, task_id, None, EVERYTHING)
    content = b"".join(download.pieces)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (download.size, download.sha256)
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "kept")
    assert "falls from 0.01 to 0, 2 steps of 8 examples" in (tmp_path / "kept" / "README.md").read_text()
    assert f"# Task {task_id}\n" in (tmp_path / "kept" / "README.md").read_text()
    pipeline.ingest(submit_folder(database, tmp_path / "kept").id)  # the adapter is the one that was measured
    with database.transaction() as session:
        stored = vectors.newest_of(session, ["local/kept"], viewer=PUBLIC)["local/kept"]
    assert np.allclose(stored.vector, found[0], rtol=1e-5)


def test_no_adapter_is_kept_otherwise(database: Database, pipeline: Pipeline):
    task_id, job = ask(database)
    pipeline.ingest(job.id)
    with pytest.raises(ArchiveNotFound):
        task_service.adapter(database, task_id, None, EVERYTHING)


def test_it_is_no_model_of_the_catalog(database: Database, pipeline: Pipeline):
    _, job = ask(database)
    pipeline.ingest(job.id)
    with database.transaction() as session:
        for viewer in (PUBLIC, EVERYTHING):
            assert [model.repo_id for model in models.page(session, viewer=viewer)] == ["local/m0", "local/m1"]
        assert models.counts(session)[ModelState.INDEXED] == 2


def test_the_nearest_models_and_the_base_are_scored_on_examples_held_back(database: Database, pipeline: Pipeline):
    task_id, job = ask(database, verify=2)
    pipeline.ingest(job.id)
    figures = look(database, task_id)[0].runs[0].figures
    assert figures["held_back"] == 2
    assert {each["repo_id"] for each in figures["scores"]} == {"local/m0", "local/m1"}
    assert all(each["loss"] > 0 and each["error"] is None for each in figures["scores"])
    assert figures["scores"][0]["similarity"] >= figures["scores"][1]["similarity"]
    assert figures["base_loss"] > 0


def test_a_model_that_is_gone_by_now_is_an_error_in_its_place(database: Database, pipeline: Pipeline, tmp_path: Path):
    (tmp_path / "m0" / "adapter_model.safetensors").unlink()
    task_id, job = ask(database, verify=2)
    pipeline.ingest(job.id)
    task, job, _ = look(database, task_id)
    errors = {each["repo_id"]: each["error"] for each in task.runs[0].figures["scores"]}
    assert (job.state, errors["local/m1"]) == (JobState.DONE, None)
    assert errors["local/m0"] is not None


def test_a_hub_that_does_not_answer_costs_no_task(
    database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub
):
    pipeline = make_pipeline(database, pico_base, tmp_path, endpoint=scripted_hub.url)
    for number in range(2):
        folder = pico.make_adapter(tmp_path / f"m{number}", seed=number)
        scripted_hub.publishes(f"o/m{number}", {path.name: path.read_bytes() for path in folder.iterdir()})
        pipeline.ingest(submit_repo(database, RepoRef(f"o/m{number}")).id)
    scripted_hub.disturb = lambda path: Answer(500)
    task_id, job = ask(database, verify=2)
    pipeline.ingest(job.id)
    task, job, found = look(database, task_id)
    assert (job.state, len(found)) == (JobState.DONE, 5)
    assert {each["error"] for each in task.runs[0].figures["scores"]} == {"hub_unavailable"}


def test_it_is_worked_on_alone_and_others_after_it(database: Database, pico_base: Path, tmp_path: Path):
    made = assemble(database, pico_base, tmp_path)
    pipeline, worker = made.pipeline, made.worker_id
    for number in range(2):
        pipeline.ingest(submit_folder(database, pico.make_adapter(tmp_path / f"m{number}", seed=number)).id)
    other = submit_folder(database, pico.make_adapter(tmp_path / "m2", seed=2))
    _, job = ask(database)
    with database.transaction() as session:
        assert [each.id for each in claims.claim(session, job.id, worker, 8)] == [job.id]
        assert claims.next_due(session, [], 120).job_id == other.id
        claims.put_back(session, [job.id], worker, pico.BASE_ID)
    assert pipeline.ingest(job.id) == 2
    with database.transaction() as session:
        assert {jobs.get(session, each.id).state for each in (job, other)} == {JobState.DONE}


@pytest.mark.usefixtures("pipeline")
def test_a_cancelled_task_stores_nothing(database: Database, pico_base: Path, tmp_path: Path):
    def cancelling(*parts: Any) -> dict[Source, JobRunner]:
        return {Source.EXAMPLES: TaskRunner(*parts, reporter=cancel_at_first_report)}

    task_id, job = ask(database)
    make_pipeline(database, pico_base, tmp_path, runners=cancelling).ingest(job.id)
    _, job, found = look(database, task_id)
    assert (job.state, found) == (JobState.CANCELLED, None)


def test_a_task_that_was_cancelled_or_failed_keeps_its_examples_for_a_retry(database: Database, pipeline: Pipeline):
    task_id, job = ask(database)
    job_control.cancel(database, job.id)
    with database.transaction() as session:
        assert tasks.forget_examples(session) == 0
    job_control.retry(database, job.id)
    pipeline.ingest(job.id)
    task, job, _ = look(database, task_id)
    assert (job.state, task.examples) == (JobState.DONE, None)


def test_a_task_whose_examples_are_forgotten_cannot_be_retried(database: Database, pipeline: Pipeline):
    task_id, job = ask(database)
    job_control.cancel(database, job.id)
    with database.transaction() as session:
        session.execute(update(Job).values(finished_at=func.now() - text("interval '8 days'")))
        assert tasks.forget_examples(session) == 1
    with pytest.raises(NotRetriable, match=f"examples of task {task_id} have been forgotten"):
        job_control.retry(database, job.id)
    with database.transaction() as session:
        assert jobs.get(session, job.id).state == JobState.CANCELLED


def test_a_worker_that_stops_interrupts_the_training_and_counts_no_death(database: Database, pipeline: Pipeline):
    long = Recipe(rate=1e-4, batch=1, passes=250, most_steps=2_000, tokens=300)
    _, of_runs = task_service.ask(database, Question(EXAMPLES, recipe=long), NOBODY, PUBLIC)
    [job] = of_runs.values()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(pipeline.ingest, job.id)
        wait_until(lambda: state_of(database, job.id).progress > 0, "the training has begun")
        pipeline.stop()
        working.result()
    now = state_of(database, job.id)
    assert (now.state, now.deaths, now.worker_id) == (JobState.QUEUED, 0, None)
    assert [attempt["outcome"] for attempt in now.history] == ["released"]
    assert pipeline.ingest(job.id) == 0  # it takes no more


def state_of(database: Database, job_id: int) -> Job:
    with database.transaction() as session:
        return jobs.get(session, job_id, EVERYTHING)


def test_a_base_that_is_another_by_now_is_told(database: Database, pipeline: Pipeline, pico_base: Path):
    task_id, job = ask(database)
    folder = pico_base / pico.BASE_ID
    config = (folder / "config.json").read_bytes()
    try:
        (folder / "config.json").write_bytes(config + b"\n")
        pipeline.ingest(job.id)
    finally:
        (folder / "config.json").write_bytes(config)
    _, job, _ = look(database, task_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "base_unresolved")


def test_a_base_of_which_nothing_is_indexed_is_told_at_once(database: Database, pipeline: Pipeline):
    with pytest.raises(SpaceNotFound, match="pico/other"):
        ask(database, base="pico/other")


def test_what_is_asked_with_a_key_is_that_keys(database: Database, pipeline: Pipeline):
    task_id, job = ask(database, Viewer("me"))
    assert job.viewer == "me"
    pipeline.ingest(job.id)
    assert look(database, task_id)[1].state == JobState.DONE


def test_copies_of_one_model_agree_on_nothing(database: Database, pipeline: Pipeline, tmp_path: Path):
    for number in range(2, 4):
        pipeline.ingest(submit_folder(database, pico.make_adapter(tmp_path / f"m{number}", seed=0)).id)
    (tmp_path / "m1" / "adapter_model.safetensors").unlink()
    task_id, job = ask(database, verify=4)
    pipeline.ingest(job.id)
    task, job, _ = look(database, task_id)
    assert (job.state, job.error_code) == (JobState.DONE, None)
    assert len({each["loss"] for each in task.runs[0].figures["scores"] if each["loss"]}) == 1
    assert task.runs[0].figures["agreement"] is None


def test_agreement_is_of_the_ranks():
    lines = [{"similarity": similarity, "loss": loss} for similarity, loss in ((0.9, 1.0), (0.5, 2.0), (0.1, 2.5))]
    assert agreement(lines) == 1
    assert agreement([*lines, {"similarity": 0.0, "loss": None}]) == 1
    assert agreement(lines[:2]) is None
