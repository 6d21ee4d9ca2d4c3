"""Panics in native libraries, and exits of the process, while a worker is running jobs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from catalog.database import Database
from catalog.jobs.repository import claims, jobs
from catalog.jobs.submissions import submit_folder
from catalog.models.repository import models
from catalog.tables import Job, JobState, ModelState
from tests.support import pico
from tests.support.pipeline import make_pipeline
from workers.encoding.encoder import Encoder
from workers.ingest.fetcher import Fetched, Fetcher

PANICKING_BASE = "evil/base"
HARD_PATTERN = r"((\w|\s)+)+\d$"  # makes the tokenizer's regex engine give up and panic


@pytest.fixture
def bases(pico_base: Path, tmp_path: Path) -> Path:
    """The folder of bases, with one more whose tokenizer panics."""
    folder = shutil.copytree(pico_base, tmp_path / "bases")
    file = pico.make_base(folder / PANICKING_BASE, seed=3) / "tokenizer.json"
    content = json.loads(file.read_text())
    split = {"type": "Split", "pattern": {"Regex": HARD_PATTERN}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, content["pre_tokenizer"]]}
    file.write_text(json.dumps(content))
    return folder


def get_job(database: Database, job_id: int) -> Job:
    with database.transaction() as session:
        return jobs.get(session, job_id)


def oldest_due(database: Database) -> int | None:
    with database.transaction() as session:
        return claims.find_oldest_due(session)


def test_tokenizer_panic_fails_only_its_job(database: Database, bases: Path, tmp_path: Path):
    pipeline = make_pipeline(database, bases, tmp_path)
    bad = submit_folder(database, pico.make_adapter(tmp_path / "evil", base=PANICKING_BASE)).id
    good = [submit_folder(database, pico.make_adapter(tmp_path / f"m{seed}", seed=seed)).id for seed in range(2)]

    assert pipeline.ingest(bad) == 3

    job = get_job(database, bad)
    assert (job.state, job.error_code, job.attempts, job.worker_deaths) == (
        JobState.FAILED,
        "native_library_failed",
        1,
        0,
    )
    assert "tokenizer" in job.error_message
    assert {get_job(database, job_id).state for job_id in good} == {JobState.DONE}


def test_panic_in_a_download_thread_fails_only_its_job(database: Database, pico_base: Path, tmp_path: Path):
    class Panic(BaseException):
        """Like the panics that pyo3 raises, not an `Exception`."""

    first, second = (submit_folder(database, pico.make_adapter(tmp_path / f"m{seed}", seed=seed)) for seed in (1, 2))

    class Panicking(Fetcher):
        def fetch(self, job: Job, *args: object, **settings: object) -> Fetched | None:
            if job.id == first.id:
                raise Panic("called `Option::unwrap()` on a `None` value")
            return super().fetch(job, *args, **settings)

    make_pipeline(database, pico_base, tmp_path, fetcher_class=Panicking).ingest(first.id)

    assert get_job(database, first.id).error_code == "native_library_failed"
    assert get_job(database, second.id).state == JobState.DONE


def test_unattributed_exit_counts_as_a_worker_death_on_each_running_job(
    database: Database, pico_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    encode = Encoder.encode

    def exiting(encoder: Encoder, finetunes: list) -> list:
        if any(finetune.folder.name == "exit" for finetune in finetunes):
            raise SystemExit(1)
        return encode(encoder, finetunes)

    monkeypatch.setattr(Encoder, "encode", exiting)
    bad = submit_folder(database, pico.make_adapter(tmp_path / "exit", seed=1)).id
    good = submit_folder(database, pico.make_adapter(tmp_path / "good", seed=2)).id

    exits = 0
    while (due := oldest_due(database)) is not None and exits < 4:
        try:
            make_pipeline(database, pico_base, tmp_path).ingest(due)  # a new worker each time
        except SystemExit:
            exits += 1

    assert exits == 2
    job = get_job(database, bad)
    assert (job.state, job.error_code, job.worker_deaths) == (JobState.FAILED, "quarantined", 2)
    assert get_job(database, good).state == JobState.DONE
    with database.transaction() as session:
        assert models.get(session, "local/exit").state == ModelState.FAILED
