"""A poison job among others, with workers in separate processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.database import Database
from catalog.jobs.recovery import recover
from catalog.jobs.repository import claims, jobs
from catalog.jobs.submissions import submit_folder
from catalog.models.repository import models
from catalog.quarantine import repository as quarantine
from catalog.tables import JobState, ModelState
from tests.support import pico

# a worker whose process is killed at one model, as by a crash of a native library, and at one base, as by the kernel
# when memory is short
WORKER = """
import os, signal, sys
from pathlib import Path
from catalog.database import Database
from catalog.jobs.repository import claims
from tests.support.pipeline import make_pipeline
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase

encode, load = Encoder.encode, ResidentBase.load

def encode_or_die(encoder, finetunes):
    if any(finetune.folder.name == "poison" for finetune in finetunes):
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(encoder, finetunes)

def load_or_die(folder, repo, *arguments, **settings):
    if repo == "evil/base":
        os.kill(os.getpid(), signal.SIGKILL)
    return load(folder, repo, *arguments, **settings)

Encoder.encode, ResidentBase.load = encode_or_die, load_or_die
database = Database(sys.argv[1])
pipeline = make_pipeline(database, Path(sys.argv[2]), Path(sys.argv[3]))
with database.transaction() as session:
    due = claims.find_oldest_due(session)
pipeline.ingest(due)
"""


def run_worker(database: Database, bases: Path, folder: Path) -> int:
    command = [sys.executable, "-c", WORKER, database.url, str(bases), str(folder)]
    return subprocess.run(command, cwd=Path(__file__).parents[3], timeout=100, check=False).returncode


def run_workers(database: Database, bases: Path, folder: Path) -> list[int]:
    """Run one worker after another until no job is due. Returns how they ended."""
    ends = []
    for _ in range(6):
        ends.append(run_worker(database, bases, folder))
        recover(database, requeue_after=0, max_worker_deaths=2)
        with database.transaction() as session:
            if claims.find_oldest_due(session) is None:
                break
    return ends


@pytest.mark.exhaustive
def test_poison_job_is_quarantined_and_other_jobs_finish(database: Database, pico_base: Path, tmp_path: Path):
    others = [submit_folder(database, pico.make_adapter(tmp_path / f"m{n}", seed=n)).id for n in range(3)]
    poison = submit_folder(database, pico.make_adapter(tmp_path / "poison", seed=9)).id

    ends = run_workers(database, pico_base, tmp_path)

    with database.transaction() as session:
        assert {jobs.get(session, job_id).state for job_id in others} == {JobState.DONE}
        job = jobs.get(session, poison)
        assert models.get(session, "local/poison").state == ModelState.FAILED
        assert session.execute(text("SELECT count(*) FROM vectors")).scalar_one() == len(others)
    assert (job.state, job.error_code, job.worker_deaths) == (JobState.FAILED, "quarantined", 2)
    assert ends.count(-signal.SIGKILL) == 2
    assert [(attempt["outcome"], attempt["state"], attempt["concurrent_jobs"]) for attempt in job.history] == [
        ("worker died", "encoding", 3),
        ("worker died", "encoding", 0),
    ]
    assert len({attempt["worker_id"] for attempt in job.history}) == 2


@pytest.mark.exhaustive
def test_base_whose_loading_kills_two_workers_is_quarantined_for_all_of_its_adapters(
    database: Database, pico_base: Path, tmp_path: Path
):
    bases = shutil.copytree(pico_base, tmp_path / "bases")
    pico.make_base(bases / "evil/base", seed=3)
    good = submit_folder(database, pico.make_adapter(tmp_path / "good", seed=1)).id
    on_evil = [submit_folder(database, pico.make_adapter(tmp_path / "first", seed=2, base="evil/base")).id]

    ends = run_workers(database, bases, tmp_path)
    for seed in (3, 4):
        on_evil.append(submit_folder(database, pico.make_adapter(tmp_path / f"m{seed}", base="evil/base")).id)
    ends += run_workers(database, bases, tmp_path)

    assert ends.count(-signal.SIGKILL) == 2
    with database.transaction() as session:
        assert jobs.get(session, good).state == JobState.DONE
        assert {jobs.get(session, job_id).error_code for job_id in on_evil} == {"base_quarantined"}
        assert [entry.repo_id for entry in quarantine.list_page(session, repo_id=None, before=None, limit=9)] == [
            "evil/base"
        ]
