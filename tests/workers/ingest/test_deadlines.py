"""Deadlines of jobs, slow downloads, and memory in a worker's pipeline."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from sqlalchemy import text

from catalog.database import Database
from catalog.jobs.repository import attempts, claims, jobs, recovery, workers
from catalog.jobs.submissions import submit_folder, submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.tables import Job, JobState
from tests.support import pico
from tests.support.hub_server import ScriptedHub
from tests.support.pipeline import Parts, assemble, make_pipeline
from tests.support.waiting import wait_until
from workers.bases.memory_limit import MemoryLimit
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.shape_fit import weight_shapes
from workers.ingest.claimer import BatchPolicy
from workers.ingest.fetcher import Fetched, Fetcher
from workers.ingest.fetches import ClaimedJob
from workers.process.cancellation import is_cancelled, raise_if_cancelled
from workers.process.retries import RetryPolicy
from workers.process.stages import Deadlines, Stages

OVER = 0.0  # a deadline that has passed at the first check
LIMIT = 30.0  # seconds


def get_job(database: Database, job_id: int) -> Job:
    with database.transaction() as session:
        return jobs.get(session, job_id)


def submit(database: Database, tmp_path: Path, count: int) -> list[int]:
    return [submit_folder(database, pico.make_adapter(tmp_path / f"m{n}", seed=n)).id for n in range(count)]


def wait_for_cancel(*_: object, **__: object) -> None:
    wait_until(is_cancelled, "the work is cancelled")
    raise_if_cancelled()


def assert_late(database: Database, job_id: int, stage: str) -> None:
    job = get_job(database, job_id)
    assert (job.state, job.error_code, job.worker_deaths) == (JobState.FAILED, "deadline_exceeded", 0)
    assert f"DELTADEX_{stage.upper()}_DEADLINE" in job.error_message


def test_fetch_over_its_deadline_fails_its_job_alone(database: Database, pico_base: Path, tmp_path: Path):
    late, good = submit(database, tmp_path, 2)

    class Hanging(Fetcher):
        def fetch(self, job: Job, *args: object, **options: object) -> Fetched | None:
            return wait_for_cancel() if job.id == late else super().fetch(job, *args, **options)

    deadlines = Stages(Deadlines(fetch=1.0))
    settings = {"fetcher_class": Hanging, "stages": deadlines, "retries": RetryPolicy(1, base=0)}
    make_pipeline(database, pico_base, tmp_path, **settings).ingest(late)

    assert_late(database, late, "fetch")
    assert get_job(database, good).state == JobState.DONE


def test_job_over_a_deadline_is_retried_like_other_transient_failures(
    database: Database, pico_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ResidentBase, "load", wait_for_cancel)
    [job_id] = submit(database, tmp_path, 1)
    stages = Stages(Deadlines(load=OVER))
    make_pipeline(database, pico_base, tmp_path, stages=stages, retries=RetryPolicy(2, base=100)).ingest(job_id)
    job = get_job(database, job_id)
    assert (job.state, job.error_code) == (JobState.QUEUED, "deadline_exceeded")


def test_load_over_its_deadline_fails_all_jobs_of_the_base_at_once(
    database: Database, pico_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loads: list[object] = []

    def load(*args: object, **_: object) -> None:
        loads.append(args)
        wait_for_cancel()

    monkeypatch.setattr(ResidentBase, "load", load)
    job_ids = submit(database, tmp_path, 3)
    stages = Stages(Deadlines(load=OVER))
    make_pipeline(database, pico_base, tmp_path, stages=stages, retries=RetryPolicy(1, base=0)).ingest(job_ids[0])
    for job_id in job_ids:
        assert_late(database, job_id, "load")
    assert len(loads) == 1


def test_slow_forward_pass_fails_only_the_job_that_is_slow(
    database: Database, pico_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    encode = Encoder.encode

    def slow(encoder: Encoder, finetunes: Sequence) -> list:
        if any(finetune.folder.name == "m1" for finetune in finetunes):
            wait_for_cancel()
        return encode(encoder, finetunes)

    job_ids = submit(database, tmp_path, 4)
    make_pipeline(database, pico_base, tmp_path).ingest(
        submit_folder(database, pico.make_adapter(tmp_path / "first")).id
    )
    monkeypatch.setattr(Encoder, "encode", slow)
    again = [submit_folder(database, pico.make_adapter(tmp_path / f"m{n}", seed=9 + n)).id for n in range(4)]
    stages = Stages(Deadlines(forward=2.0))
    make_pipeline(database, pico_base, tmp_path, stages=stages, retries=RetryPolicy(1, base=0)).ingest(again[0])

    assert {get_job(database, job_id).state for job_id in job_ids} == {JobState.DONE}
    assert_late(database, again[1], "forward")
    assert {get_job(database, again[number]).state for number in (0, 2, 3)} == {JobState.DONE}


def test_jobs_of_a_hung_stage_alone_count_a_death_and_end_in_quarantine(
    database: Database, pico_base: Path, tmp_path: Path
):
    """What a worker does before the watchdog ends it."""
    hung, other = submit(database, tmp_path, 2)
    for deaths in (1, 2):
        with database.transaction() as session:
            worker_id = workers.register(session, "here", 1, "cpu")
            assert claims.claim(session, hung, worker_id, 1)
            claims.claim(session, other, worker_id, 1)
            recovery.count_deaths(session, [worker_id], 2, [hung])
            attempts.release(session, [worker_id])
        assert get_job(database, hung).worker_deaths == deaths
        assert get_job(database, other).worker_deaths == 0
    assert get_job(database, hung).state == JobState.QUEUED  # it ran with another job both times
    with database.transaction() as session:
        worker_id = workers.register(session, "here", 1, "cpu")
        claims.claim(session, hung, worker_id, 1)
        recovery.count_deaths(session, [worker_id], 2, [hung])
    assert get_job(database, hung).error_code == "quarantined"
    assert get_job(database, other).state == JobState.QUEUED


def test_worker_whose_heartbeat_is_late_leaves_the_jobs_to_others(database: Database, pico_base: Path, tmp_path: Path):
    [job_id] = submit(database, tmp_path, 1)
    pipeline = make_pipeline(database, pico_base, tmp_path, batching=BatchPolicy(max_silence=LIMIT))
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = 'epoch'"))
    assert pipeline.ingest(job_id) == 0
    assert get_job(database, job_id).attempts == 0
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now()"))
    assert pipeline.ingest(job_id) == 1


class SlowFetcher(Fetcher):
    """Fetches folders whose name begins with "slow" only once `released` is set."""

    released = threading.Event()

    def fetch(self, job: Job, *args: object, **options: object) -> Fetched | None:
        if job.model.repo_id.startswith("local/slow"):
            wait_until(lambda: self.released.is_set() or is_cancelled(), "the download ends")
            raise_if_cancelled()
        return super().fetch(job, *args, **options)


@pytest.fixture
def slow_fetcher() -> type[SlowFetcher]:
    return type("OneSlowFetcher", (SlowFetcher,), {"released": threading.Event()})


def test_batch_goes_on_without_a_slow_download_which_comes_with_a_later_one(
    database: Database, pico_base: Path, tmp_path: Path, slow_fetcher: type[SlowFetcher]
):
    slow = submit_folder(database, pico.make_adapter(tmp_path / "slow", seed=7)).id
    first, second = submit(database, tmp_path, 2)
    parts = assemble(
        database, pico_base, tmp_path, fetcher_class=slow_fetcher, batching=BatchPolicy(size=2, patience=0.2)
    )
    worker = threading.Thread(target=parts.pipeline.ingest, args=[slow])
    worker.start()
    try:
        for job_id in (first, second):
            wait_until(lambda job_id=job_id: get_job(database, job_id).state == JobState.DONE, "the others are done")
        assert get_job(database, slow).state == JobState.FETCHING
    finally:
        slow_fetcher.released.set()
        worker.join(LIMIT)
    job = get_job(database, slow)
    assert (job.state, job.attempts) == (JobState.DONE, 1)


def test_slow_download_returns_to_the_queue_when_the_time_is_up(
    database: Database, pico_base: Path, tmp_path: Path, slow_fetcher: type[SlowFetcher]
):
    slow = submit_folder(database, pico.make_adapter(tmp_path / "slow")).id
    policy = BatchPolicy(size=2, patience=0.1, max_duration=0, max_overtime=0)
    assert make_pipeline(database, pico_base, tmp_path, fetcher_class=slow_fetcher, batching=policy).ingest(slow) == 1
    job = get_job(database, slow)
    assert (job.state, job.attempts, job.history) == (JobState.QUEUED, 0, [])
    slow_fetcher.released.set()
    make_pipeline(database, pico_base, tmp_path, fetcher_class=slow_fetcher).ingest(slow)
    assert get_job(database, slow).state == JobState.DONE


def test_slow_download_gives_way_to_an_exclusive_job(
    database: Database, pico_base: Path, tmp_path: Path, slow_fetcher: type[SlowFetcher]
):
    slow = submit_folder(database, pico.make_adapter(tmp_path / "slow", seed=3)).id
    [suspect] = submit(database, tmp_path, 1)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET worker_deaths = 1 WHERE id = :id"), {"id": suspect})
    policy = BatchPolicy(size=2, patience=0.1)
    pipeline = make_pipeline(database, pico_base, tmp_path, fetcher_class=slow_fetcher, batching=policy)
    worker = threading.Thread(target=pipeline.ingest, args=[slow])
    worker.start()
    try:
        wait_until(lambda: get_job(database, suspect).state == JobState.DONE, "the exclusive job has run")
    finally:
        slow_fetcher.released.set()
        worker.join(LIMIT)
    assert get_job(database, slow).state == JobState.DONE


def test_files_of_the_next_batch_are_released_when_a_batch_raises(
    database: Database, pico_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job_ids = submit(database, tmp_path, 2)
    prefetched, taken = threading.Event(), []
    pipeline = make_pipeline(database, pico_base, tmp_path, batching=BatchPolicy(size=1))
    fetch = pipeline._fetches._fetch

    def watched(*args: object) -> ClaimedJob | None:
        claimed = fetch(*args)
        claimed.fetched.locks.acquire(tmp_path / f"lock{len(taken)}")
        taken.append(claimed)
        if len(taken) == 2:
            prefetched.set()
        return claimed

    def exiting(*_: object) -> list:
        assert prefetched.wait(LIMIT)
        raise SystemExit(1)

    pipeline._fetches._fetch = watched
    monkeypatch.setattr(Encoder, "encode", exiting)
    with pytest.raises(SystemExit):
        pipeline.ingest(job_ids[0])
    assert [claimed.fetched.locks._held for claimed in taken] == [{}, {}]


def test_failed_forward_pass_is_freed_before_its_group_is_encoded_in_halves(
    database: Database, pico_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Activations:
        pass

    encode = Encoder.encode
    activations: list[weakref.ref] = []
    tried: list[tuple[int, int]] = []  # sizes of groups, and how many failed forward passes are in memory

    def run_out_of_memory(encoder: Encoder, finetunes: Sequence) -> list:
        gc.collect()
        tried.append((len(finetunes), sum(reference() is not None for reference in activations)))
        if len(finetunes) > 2:
            held = Activations()
            activations.append(weakref.ref(held))
            raise RuntimeError("CUDA out of memory (a stand-in)")
        return encode(encoder, finetunes)

    monkeypatch.setattr(Encoder, "encode", run_out_of_memory)
    job_ids = submit(database, tmp_path, 4)
    make_pipeline(database, pico_base, tmp_path).ingest(job_ids[0])
    assert tried == [(4, 0), (2, 0), (2, 0)]
    assert {get_job(database, job_id).state for job_id in job_ids} == {JobState.DONE}


# Memory limits


def bytes_of_base(pico_base: Path) -> int:
    return MemoryLimit(0).required(weight_shapes(pico_base / pico.BASE_ID))


def test_base_in_a_folder_that_exceeds_the_memory_is_not_loaded(database: Database, pico_base: Path, tmp_path: Path):
    [job_id] = submit(database, tmp_path, 1)
    parts = assemble(database, pico_base, tmp_path, budget=bytes_of_base(pico_base) - 1)
    parts.pipeline.ingest(job_id)
    job = get_job(database, job_id)
    assert (job.state, job.error_code, job.attempts) == (JobState.FAILED, "model_too_large", 1)
    assert parts.bases.repos == []


def hub_parts(database: Database, hub: ScriptedHub, tmp_path: Path, budget: int) -> Parts:
    return assemble(database, tmp_path / "no-bases", tmp_path, endpoint=hub.url, budget=budget)


def published(hub: ScriptedHub, repo_id: str, folder: Path) -> None:
    hub.publish(repo_id, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})


def padded(folder: Path) -> Path:
    """The same model with a tensor that makes its weights longer than what is requested for their header."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.self_attn.rotary_emb.padding"] = tensors["model.embed_tokens.weight"].repeat(64, 1)
    save_file(tensors, file, {"format": "pt"})
    return folder


def test_base_that_exceeds_the_memory_is_refused_before_its_weights_are_downloaded(
    database: Database, scripted_hub: ScriptedHub, tmp_path: Path
):
    base = padded(pico.make_base(tmp_path / "base"))
    published(scripted_hub, pico.BASE_ID, base)
    published(scripted_hub, "o/adapter", pico.make_adapter(tmp_path / "adapter"))
    required = MemoryLimit(0).required(weight_shapes(base))
    job_id = submit_repo(database, RepoRef("o/adapter")).id

    hub_parts(database, scripted_hub, tmp_path, required - 1).pipeline.ingest(job_id)

    job = get_job(database, job_id)
    assert (job.state, job.error_code, job.attempts) == (JobState.FAILED, "model_too_large", 1)
    assert f"{required:,}" in job.error_message
    assert f"{required - 1:,}" in job.error_message
    assert "DELTADEX_BASE_MEMORY" in job.error_message
    sent = scripted_hub.bytes_sent[f"/{pico.BASE_ID}/resolve/{scripted_hub.sha}/model.safetensors"]
    assert sent < (base / "model.safetensors").stat().st_size / 2
    adapters = scripted_hub.bytes_sent[f"/o/adapter/resolve/{scripted_hub.sha}/adapter_model.safetensors"]
    assert adapters <= (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size


def test_full_model_that_exceeds_the_memory_is_refused_before_its_weights_are_downloaded(
    database: Database, scripted_hub: ScriptedHub, tmp_path: Path
):
    model = padded(pico.make_base(tmp_path / "model", seed=5))
    published(scripted_hub, "o/full", model)
    job_id = submit_repo(database, RepoRef("o/full")).id
    budget = MemoryLimit(0).required(weight_shapes(model)) - 1

    hub_parts(database, scripted_hub, tmp_path, budget).pipeline.ingest(job_id)

    assert get_job(database, job_id).error_code == "model_too_large"
    sent = scripted_hub.bytes_sent[f"/o/full/resolve/{scripted_hub.sha}/model.safetensors"]
    assert sent < (model / "model.safetensors").stat().st_size / 2
