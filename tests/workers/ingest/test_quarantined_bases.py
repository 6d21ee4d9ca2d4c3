"""Bases and adapters whose files end their readers, from their first jobs to the refusal of later ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.database import Database
from catalog.errors import WorkerLost
from catalog.jobs import control as job_control
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.quarantine import repository as quarantine
from catalog.quarantine import service as quarantine_service
from catalog.quarantine.repository import QuarantineKey
from catalog.tables import Job, JobState
from tests.support import pico
from tests.support.hub_server import ScriptedHub
from tests.support.pipeline import make_pipeline
from tests.support.quarantine import LIMIT, READER_MEMORY, make_crashing_base, make_vast_adapter
from workers.ingest.pipeline import Pipeline
from workers.readers.pool import ReaderPool

GOOD, EVIL = "good/llama", "evil/llama"
NEXT_SHA = "6" * 40


@pytest.fixture(scope="module")
def readers() -> Iterator[ReaderPool]:
    pool = ReaderPool(1, memory=READER_MEMORY)
    yield pool
    pool.stop()


@pytest.fixture
def pipeline(database: Database, scripted_hub: ScriptedHub, tmp_path: Path, readers: ReaderPool) -> Pipeline:
    """A worker, and a Hub with a good base, and one that ends its readers."""
    publish(scripted_hub, GOOD, pico.make_base(tmp_path / "good"))
    publish(scripted_hub, EVIL, make_crashing_base(tmp_path / "evil"))
    return make_pipeline(database, tmp_path / "bases", tmp_path, endpoint=scripted_hub.url, readers=readers)


def publish(hub: ScriptedHub, repo: str, folder: Path, sha: str | None = None) -> None:
    hub.publish(repo, {path.name: path.read_bytes() for path in folder.iterdir()}, sha=sha)


def ingest(database: Database, pipeline: Pipeline, *names: str) -> list[Job]:
    submitted = [submit_repo(database, RepoRef(f"owner/{name}")) for name in names]
    pipeline.ingest(submitted[0].id)
    return [get_job(database, job.id) for job in submitted]


def get_job(database: Database, job_id: int) -> Job:
    with database.transaction() as session:
        return jobs.get(session, job_id)


def codes(ended: list[Job]) -> list[str | None]:
    return [job.error_code for job in ended]


def test_base_that_ended_two_readers_is_refused_before_a_download_until_it_is_lifted(
    database: Database, pipeline: Pipeline, scripted_hub: ScriptedHub, tmp_path: Path
):
    for number in range(4):
        adapter = pico.make_adapter(tmp_path / f"m{number}", seed=number, base=EVIL)
        publish(scripted_hub, f"owner/m{number}", adapter)
    assert codes(ingest(database, pipeline, "m0", "m1")) == ["reader_crashed"] * 2  # one reader for both
    assert codes(ingest(database, pipeline, "m2")) == ["reader_crashed"]
    scripted_hub.requests.clear()

    [refused] = ingest(database, pipeline, "m3")

    assert (refused.state, refused.error_code, refused.attempts) == (JobState.FAILED, "base_quarantined", 1)
    assert "deltadex quarantine lift evil/llama" in (refused.error_message or "")
    assert not any(EVIL in path for _, path, _ in scripted_hub.download_requests())
    assert len(scripted_hub.download_requests("adapter_model.safetensors")) == 1  # for its header

    [entry] = quarantine_service.list_page(database, before=None, limit=10)
    assert (entry.kind, entry.repo_id, entry.sha, entry.ends) == ("base", EVIL, scripted_hub.sha, 2)
    quarantine_service.lift(database, entry.id)
    assert job_control.retry_failed(database, "base_quarantined") == 1
    pipeline.ingest(refused.id)

    assert get_job(database, refused.id).error_code == "reader_crashed"  # it was read again
    assert quarantine_service.list_page(database, before=None, limit=10) == []  # and counted from zero


def test_adapter_that_ended_two_readers_is_refused_and_other_adapters_of_its_base_are_not(
    database: Database, pipeline: Pipeline, scripted_hub: ScriptedHub, tmp_path: Path
):
    publish(scripted_hub, "owner/vast", make_vast_adapter(tmp_path / "vast", base=GOOD))
    for number in (1, 2):
        publish(scripted_hub, f"owner/m{number}", pico.make_adapter(tmp_path / f"m{number}", seed=number, base=GOOD))
    assert codes(ingest(database, pipeline, "vast", "m1")) == ["reader_out_of_memory", None]
    assert codes(ingest(database, pipeline, "vast")) == ["reader_out_of_memory"]
    scripted_hub.requests.clear()

    assert codes(ingest(database, pipeline, "vast")) == ["quarantined"]

    assert scripted_hub.download_requests() == []
    [entry] = quarantine_service.list_page(database, before=None, limit=10)
    assert (entry.kind, entry.repo_id, entry.sha) == ("repo", "owner/vast", scripted_hub.sha)
    assert codes(ingest(database, pipeline, "m2")) == [None]

    publish(scripted_hub, "owner/vast", pico.make_adapter(tmp_path / "mended", seed=3, base=GOOD), sha=NEXT_SHA)
    [mended] = ingest(database, pipeline, "vast")  # a new commit is a new chance
    assert (mended.state, mended.sha) == (JobState.DONE, NEXT_SHA)


def test_ends_before_a_success_do_not_count_after_it(
    database: Database, pipeline: Pipeline, scripted_hub: ScriptedHub, tmp_path: Path
):
    publish(scripted_hub, "owner/m0", pico.make_adapter(tmp_path / "m0", base=GOOD))
    keys = [QuarantineKey.of_base(GOOD, scripted_hub.sha), QuarantineKey.of_repo("owner/m0", scripted_hub.sha)]
    with database.transaction() as session:
        assert not any(quarantine.count(session, key, WorkerLost("It died."), LIMIT) for key in keys)

    assert codes(ingest(database, pipeline, "m0")) == [None]

    with database.transaction() as session:
        assert not any(quarantine.count(session, key, WorkerLost("It died."), LIMIT) for key in keys)
