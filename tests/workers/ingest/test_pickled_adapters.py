"""Adapters whose weights are a pickle, from the submission to the stored vector, read by real readers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from catalog.database import Database
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_folder, submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.settings import Settings
from catalog.tables import Job, JobState
from catalog.vectors.repository import vectors
from tests.support import pico
from tests.support.hub_server import ScriptedHub
from tests.support.pipeline import make_pipeline
from workers.finetunes.content import content_sha
from workers.ingest.pipeline import Pipeline
from workers.readers.pool import ReaderPool


class Command:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


@pytest.fixture(scope="module")
def readers() -> Iterator[ReaderPool]:
    pool = ReaderPool(size=1)
    yield pool
    pool.stop()


@pytest.fixture
def pipeline(
    database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub, readers: ReaderPool
) -> Pipeline:
    return make_pipeline(
        database, pico_base, tmp_path, endpoint=scripted_hub.url, readers=readers, pickled_adapters=True
    )


def make_pickled(folder: Path, *, seed: int = 0) -> Path:
    """An adapter in PEFT's former format."""
    weights = pico.make_adapter(folder, seed=seed) / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "adapter_model.bin")
    weights.unlink()
    return folder


def publish(hub: ScriptedHub, repo: str, folder: Path) -> None:
    hub.publish(repo, {path.name: path.read_bytes() for path in folder.iterdir()})


def ingest(database: Database, pipeline: Pipeline, job: Job) -> Job:
    pipeline.ingest(job.id)
    with database.transaction() as session:
        return jobs.get(session, job.id)


def stored_vector(database: Database, name: str) -> bytes:
    with database.transaction() as session:
        return vectors.get_encoding(session, name).vector.tobytes()


def test_pickled_adapters_have_the_vectors_of_the_same_safetensors(
    database: Database, pipeline: Pipeline, scripted_hub: ScriptedHub, tmp_path: Path
):
    saved = ingest(database, pipeline, submit_folder(database, pico.make_adapter(tmp_path / "saved", seed=1)))
    folder = ingest(database, pipeline, submit_folder(database, make_pickled(tmp_path / "pickled", seed=1)))
    publish(scripted_hub, "owner/pickled", tmp_path / "pickled")
    repo = ingest(database, pipeline, submit_repo(database, RepoRef("owner/pickled")))

    assert [(job.state, job.error_message) for job in (saved, folder, repo)] == [(JobState.DONE, None)] * 3
    vector = stored_vector(database, "local/saved")
    assert stored_vector(database, "local/pickled") == stored_vector(database, "owner/pickled") == vector
    with database.transaction() as session:
        revision = models.get(session, "owner/pickled").revision
    assert revision is not None
    assert any("converted to safetensors" in note for note in revision.facts["notes"])


def test_pickled_adapter_of_a_checkpoint_folder_is_read(database: Database, pipeline: Pipeline, tmp_path: Path):
    make_pickled(tmp_path / "run" / "checkpoint-7")
    job = ingest(database, pipeline, submit_folder(database, tmp_path / "run"))
    assert (job.state, job.error_message) == (JobState.DONE, None)


def test_safetensors_beside_a_pickle_are_preferred(database: Database, pipeline: Pipeline, tmp_path: Path):
    folder = pico.make_adapter(tmp_path / "both")
    (folder / "adapter_model.bin").write_bytes(b"anything")
    assert ingest(database, pipeline, submit_folder(database, folder)).state == JobState.DONE


def test_new_weights_of_a_pickled_folder_are_another_content(tmp_path: Path):
    before = content_sha(make_pickled(tmp_path / "one", seed=1))
    assert content_sha(make_pickled(tmp_path / "one", seed=2)) != before
    with_safetensors = content_sha(pico.make_adapter(tmp_path / "two"))
    (tmp_path / "two" / "adapter_model.bin").write_bytes(b"anything")
    assert content_sha(tmp_path / "two") == with_safetensors


def test_malicious_pickle_fails_its_job_and_nothing_ran(
    database: Database, pipeline: Pipeline, readers: ReaderPool, tmp_path: Path
):
    ran, folder = tmp_path / "ran", make_pickled(tmp_path / "evil")
    torch.save({"a": torch.ones(2), "b": Command(f"touch {ran}")}, folder / "adapter_model.bin")

    job = ingest(database, pipeline, submit_folder(database, folder))

    assert (job.state, job.error_code, job.attempts) == (JobState.FAILED, "pickled_weights", 1)
    assert "could run code" in (job.error_message or "")
    assert not ran.exists()


def test_pickled_adapters_are_refused_where_they_are_not_switched_on(
    database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub
):
    assert not Settings().pickled_adapters
    pipeline = make_pipeline(database, pico_base, tmp_path, endpoint=scripted_hub.url)
    publish(scripted_hub, "owner/pickled", make_pickled(tmp_path / "pickled"))

    for job in (
        submit_folder(database, tmp_path / "pickled"),
        submit_repo(database, RepoRef("owner/pickled")),
    ):
        refused = ingest(database, pipeline, job)
        assert (refused.state, refused.error_code) == (JobState.FAILED, "pickled_weights")
        assert "Save them as safetensors" in (refused.error_message or "")
        assert "DELTADEX_PICKLED_ADAPTERS" in (refused.error_message or "")
    assert scripted_hub.download_requests() == []
