"""Jobs whose files end a reader, among good ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.database import Database
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_folder
from catalog.tables import Job, JobState
from tests.support import pico
from tests.support.pipeline import assemble
from workers.readers.pool import ReaderPool

PANICS, LARGE, SLOW = EVIL = ("evil/panics", "evil/large", "evil/slow")


@pytest.fixture(scope="module")
def pool() -> Iterator[ReaderPool]:
    pool = ReaderPool(2, seconds=15, memory=2**27)
    pool.start()
    yield pool
    pool.stop()


def change_tokenizer(folder: Path, **changes: object) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def split(pattern: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def vocabulary(size: int) -> dict[str, int]:
    return {f"word{number:09}": number for number in range(size)}


@pytest.fixture
def bases(pico_base: Path, tmp_path: Path) -> Path:
    """The folder of bases, with more whose tokenizers panic, take memory, and take long."""
    folder = shutil.copytree(pico_base, tmp_path / "bases")
    for seed, name in enumerate(EVIL, 3):
        pico.make_base(folder / name, seed=seed)
    change_tokenizer(folder / PANICS, pre_tokenizer=split(r"((\w|\s)+)+\d$"))
    cubic = split(r"[\w\s]*[\w\s]*[\w\s]*\d$")
    change_tokenizer(folder / SLOW, pre_tokenizer={"type": "Sequence", "pretokenizers": [cubic] * 3000})
    model = {"type": "WordLevel", "vocab": vocabulary(1_000_000), "unk_token": "word000000000"}
    change_tokenizer(folder / LARGE, model=model, pre_tokenizer=None)
    return folder


def get_job(database: Database, job_id: int) -> Job:
    with database.transaction() as session:
        return jobs.get(session, job_id)


def test_files_that_end_a_reader_fail_their_own_jobs_alone(
    database: Database, bases: Path, tmp_path: Path, pool: ReaderPool
):
    pipeline = assemble(database, bases, tmp_path, readers=pool).pipeline
    expected = {
        PANICS: "reader_crashed",
        LARGE: "reader_out_of_memory",
        SLOW: "reader_timed_out",
    }
    evil = {
        submit_folder(database, pico.make_adapter(tmp_path / f"evil{number}", base=base)).id: code
        for number, (base, code) in enumerate(expected.items())
    }
    good = [submit_folder(database, pico.make_adapter(tmp_path / f"m{seed}", seed=seed)).id for seed in range(3)]

    for job_id in evil:
        pipeline.ingest(job_id)

    ended = [get_job(database, job_id) for job_id in evil]
    assert {job.id: job.error_code for job in ended} == evil
    assert {(job.state, job.attempts, job.worker_deaths) for job in ended} == {(JobState.FAILED, 1, 0)}
    assert {(get_job(database, id).state, get_job(database, id).attempts) for id in good} == {(JobState.DONE, 1)}
    for job, base in zip(ended, expected, strict=True):
        assert base in job.error_message
