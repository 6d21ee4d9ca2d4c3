"""What native code throws, and exits of the process, while a worker has jobs in hand."""

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

EVIL = "evil/base"
HARD_PATTERN = r"((\w|\s)+)+\d$"  # the Rust engine gives up on it, and panics


@pytest.fixture
def bases(pico_base: Path, tmp_path: Path) -> Path:
    """Beside `pico/llama` a base whose tokenizer panics."""
    folder = shutil.copytree(pico_base, tmp_path / "bases")
    file = pico.make_base(folder / EVIL, seed=3) / "tokenizer.json"
    content = json.loads(file.read_text())
    split = {"type": "Split", "pattern": {"Regex": HARD_PATTERN}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, content["pre_tokenizer"]]}
    file.write_text(json.dumps(content))
    return folder


def ended(database: Database, job_id: int) -> Job:
    with database.transaction() as session:
        return jobs.get(session, job_id)


def oldest_due(database: Database) -> int | None:
    with database.transaction() as session:
        return claims.oldest_due(session)


def test_a_panic_of_a_tokenizer_fails_its_job_and_no_other(database: Database, bases: Path, tmp_path: Path):
    pipeline = make_pipeline(database, bases, tmp_path)
    evil = submit_folder(database, pico.make_adapter(tmp_path / "evil", base=EVIL)).id
    good = [submit_folder(database, pico.make_adapter(tmp_path / f"m{seed}", seed=seed)).id for seed in range(2)]

    assert pipeline.ingest(evil) == 3

    job = ended(database, evil)
    assert (job.state, job.error_code, job.attempts, job.deaths) == (JobState.FAILED, "native_code_failed", 1, 0)
    assert "tokenizer" in job.error_message
    assert {ended(database, each).state for each in good} == {JobState.DONE}


def test_a_panic_in_a_download_thread_fails_its_job_alone(database: Database, pico_base: Path, tmp_path: Path):
    class Panic(BaseException):
        """What pyo3 raises for a panic is no `Exception` either."""

    first, second = (submit_folder(database, pico.make_adapter(tmp_path / f"m{seed}", seed=seed)) for seed in (1, 2))

    class Panicking(Fetcher):
        def fetch(self, job: Job, *args: object, **settings: object) -> Fetched | None:
            if job.id == first.id:
                raise Panic("called `Option::unwrap()` on a `None` value")
            return super().fetch(job, *args, **settings)

    make_pipeline(database, pico_base, tmp_path, fetcher_class=Panicking).ingest(first.id)

    assert ended(database, first.id).error_code == "native_code_failed"
    assert ended(database, second.id).state == JobState.DONE


def test_an_exit_that_no_job_accounts_for_counts_as_a_death_of_those_in_hand(
    database: Database, pico_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    encode = Encoder.encode

    def exiting(encoder: Encoder, finetunes: list) -> list:
        if any(finetune.folder.name == "exit" for finetune in finetunes):
            raise SystemExit(1)
        return encode(encoder, finetunes)

    monkeypatch.setattr(Encoder, "encode", exiting)
    evil = submit_folder(database, pico.make_adapter(tmp_path / "exit", seed=1)).id
    good = submit_folder(database, pico.make_adapter(tmp_path / "good", seed=2)).id

    exits = 0
    while (due := oldest_due(database)) is not None and exits < 4:
        try:
            make_pipeline(database, pico_base, tmp_path).ingest(due)  # a worker of its own, after the last one ended
        except SystemExit:
            exits += 1

    assert exits == 2
    job = ended(database, evil)
    assert (job.state, job.error_code, job.deaths) == (JobState.FAILED, "quarantined", 2)
    assert ended(database, good).state == JobState.DONE
    with database.transaction() as session:
        assert models.get(session, "local/exit").state == ModelState.FAILED
