"""Bases and adapters whose files end processes, from their first jobs to the refusal of later ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.database import Database
from catalog.errors import ReaderTimedOut
from catalog.jobs import control as job_control
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.quarantine import service as quarantine_service
from catalog.tables import Job, JobState
from tests.support import pico
from tests.support.hub_server import ScriptedHub
from tests.support.pipeline import make_pipeline
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.finetune import FineTune
from workers.ingest import fetcher
from workers.ingest.pipeline import Pipeline

BASE = "evil/llama"
NEXT_SHA = "6" * 40


@pytest.fixture
def pipeline(database: Database, scripted_hub: ScriptedHub, tmp_path: Path) -> Pipeline:
    for number in range(4):
        publish(scripted_hub, f"owner/m{number}", pico.make_adapter(tmp_path / f"m{number}", seed=number, base=BASE))
    publish(scripted_hub, BASE, pico.make_base(tmp_path / "base"))
    return make_pipeline(database, tmp_path / "bases", tmp_path, endpoint=scripted_hub.url)


@pytest.fixture
def hanging_base(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The reader of the base's files reaches its deadline."""
    monkeypatch.setattr(ResidentBase, "load", time_out)
    return monkeypatch


@pytest.fixture
def hanging_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of `owner/m0` reaches its deadline."""
    read = fetcher.read_finetune

    def read_finetune(folder: Path, **settings: int) -> FineTune:
        if "m0" in str(folder):
            raise ReaderTimedOut("Reading owner/m0 took too long.", "owner/m0")
        return read(folder, **settings)

    monkeypatch.setattr(fetcher, "read_finetune", read_finetune)


def time_out(folder: Path, repo: str, *_: object, **__: object) -> ResidentBase:
    raise ReaderTimedOut(f"Reading {repo} took too long.", repo)


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
    database: Database, pipeline: Pipeline, scripted_hub: ScriptedHub, hanging_base: pytest.MonkeyPatch
):
    assert codes(ingest(database, pipeline, "m0", "m1")) == ["reader_timed_out"] * 2  # one reader for both
    assert codes(ingest(database, pipeline, "m2")) == ["reader_timed_out"]
    scripted_hub.requests.clear()

    [refused] = ingest(database, pipeline, "m3")

    assert (refused.state, refused.error_code, refused.attempts) == (JobState.FAILED, "base_quarantined", 1)
    assert "deltadex quarantine lift evil/llama" in (refused.error_message or "")
    downloaded = {path for _, path, _ in scripted_hub.download_requests()}
    assert not any(BASE in path for path in downloaded)
    assert not scripted_hub.download_requests("adapter_model.safetensors")[1:]  # the header alone was read

    hanging_base.undo()
    [entry] = quarantine_service.list_page(database, before=None, limit=10)
    assert (entry.kind, entry.repo_id, entry.sha, entry.ends) == ("base", BASE, scripted_hub.sha, 2)
    quarantine_service.lift(database, entry.id)
    assert job_control.retry_failed(database, "base_quarantined") == 1
    pipeline.ingest(refused.id)

    assert get_job(database, refused.id).state == JobState.DONE


def test_base_that_loads_after_one_end_starts_from_zero(
    database: Database, pipeline: Pipeline, hanging_base: pytest.MonkeyPatch
):
    ingest(database, pipeline, "m0")
    hanging_base.undo()
    assert codes(ingest(database, pipeline, "m1")) == [None]
    # as in another worker, which has not loaded it yet
    pipeline._bases._resident.clear()
    hanging_base.setattr(ResidentBase, "load", time_out)
    assert codes(ingest(database, pipeline, "m2")) == ["reader_timed_out"]
    assert quarantine_service.list_page(database, before=None, limit=10) == []


@pytest.mark.usefixtures("hanging_adapter")
def test_adapter_that_ended_two_readers_is_refused_and_other_adapters_of_its_base_are_not(
    database: Database, pipeline: Pipeline, scripted_hub: ScriptedHub
):
    assert codes(ingest(database, pipeline, "m0", "m1")) == ["reader_timed_out", None]
    assert codes(ingest(database, pipeline, "m0")) == ["reader_timed_out"]
    scripted_hub.requests.clear()

    assert codes(ingest(database, pipeline, "m0")) == ["quarantined"]

    assert scripted_hub.download_requests() == []
    assert codes(ingest(database, pipeline, "m2")) == [None]


@pytest.mark.usefixtures("hanging_adapter")
def test_new_commit_of_a_quarantined_adapter_is_tried(
    database: Database, pipeline: Pipeline, scripted_hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for expected in ("reader_timed_out", "reader_timed_out", "quarantined"):
        assert codes(ingest(database, pipeline, "m0")) == [expected]
    monkeypatch.undo()
    folder = pico.make_adapter(tmp_path / "fixed", seed=9, base=BASE)
    publish(scripted_hub, "owner/m0", folder, sha=NEXT_SHA)

    [job] = ingest(database, pipeline, "m0")

    assert (job.state, job.sha) == (JobState.DONE, NEXT_SHA)
