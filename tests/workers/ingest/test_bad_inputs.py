"""Bad inputs: each fails with its own error, memory stays bounded, no code is executed, and the next job runs."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_folder, submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.tables import Base, JobState
from tests.support import pico, read_bad_inputs
from tests.support.bad_inputs import FOLDERS, LIMIT, canary_path
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.pipeline import make_pipeline
from workers.ingest.pipeline import Pipeline

LIMITS = {"max_file_bytes": LIMIT, "max_repo_files": 10_000}
ADDRESS_SPACE = 1 << 30  # bytes on top of what the process uses before it reads
READER = Path(read_bad_inputs.__file__)


def result_of(database: Database, job_id: int) -> tuple[JobState, int, str | None]:
    with database.transaction() as session:
        job = jobs.get(session, job_id)
        return job.state, job.attempts, job.error_code


def sentence_of(database: Database, job_id: int) -> str:
    with database.transaction() as session:
        return jobs.get(session, job_id).error_message or ""


# folders


@dataclass(frozen=True)
class Outcome:
    bad: tuple[JobState, int, str | None]
    sentence: str
    next: tuple[JobState, int, str | None]
    executed: bool


@pytest.fixture(scope="module")
def outcomes(
    servers: EmbeddedServers, pico_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Outcome]]:
    """The results of all folders of the corpus, and of a good folder after each, in one worker."""
    database, folder, outcomes_by_name = Database(servers.database_url), tmp_path_factory.mktemp("bad"), {}
    with database.transaction() as session:
        session.execute(text(f"TRUNCATE {', '.join(Base.metadata.tables)} RESTART IDENTITY CASCADE"))
    pipeline = make_pipeline(database, pico_base, folder, **LIMITS)
    for seed, (name, bad_input) in enumerate(FOLDERS.items()):
        bad_input.make(folder / name)
        bad = submit_folder(database, folder / name)
        pipeline.ingest(bad.id)
        good = submit_folder(database, pico.make_adapter(folder / f"good{seed}", seed=seed))
        pipeline.ingest(good.id)
        outcomes_by_name[name] = Outcome(
            result_of(database, bad.id),
            sentence_of(database, bad.id),
            result_of(database, good.id),
            canary_path(folder / name).exists(),
        )
    yield outcomes_by_name
    database.close()


@pytest.mark.parametrize("name", FOLDERS)
def test_bad_folder_fails_with_its_own_error(outcomes: dict[str, Outcome], name: str):
    assert outcomes[name].bad == (JobState.FAILED, 1, FOLDERS[name].code)


@pytest.mark.parametrize("name", [name for name, bad_input in FOLDERS.items() if bad_input.words])
def test_error_says_what_the_matter_is_and_what_to_do(outcomes: dict[str, Outcome], name: str):
    assert re.search(FOLDERS[name].words, outcomes[name].sentence)


def test_next_job_runs_after_each_bad_folder(outcomes: dict[str, Outcome]):
    assert {outcome.next for outcome in outcomes.values()} == {(JobState.DONE, 1, None)}


def test_no_code_in_a_bad_folder_is_executed(outcomes: dict[str, Outcome]):
    assert not [name for name, outcome in outcomes.items() if outcome.executed]


def test_bad_folders_do_not_affect_good_ones_of_their_batch(database: Database, pico_base: Path, tmp_path: Path):
    submitted = {}
    for name in ("nan", "vector_beyond_float32", "loha_of_lora_tensors", "missing_a", "wrong_base"):
        FOLDERS[name].make(tmp_path / name)
        submitted[name] = submit_folder(database, tmp_path / name)
    good = [submit_folder(database, pico.make_adapter(tmp_path / f"good{seed}", seed=seed)) for seed in range(2)]
    make_pipeline(database, pico_base, tmp_path, **LIMITS).ingest(good[0].id)
    assert {name: result_of(database, job.id)[2] for name, job in submitted.items()} == {
        name: FOLDERS[name].code for name in submitted
    }
    assert [result_of(database, job.id)[0] for job in good] == [JobState.DONE, JobState.DONE]


def test_unpickling_a_bad_folder_triggers_the_canary(tmp_path: Path):
    """The canary works: loading the pickle of the corpus executes code."""
    FOLDERS["adapter_in_a_pickle"].make(tmp_path / "one")
    pickle.loads((tmp_path / "one" / "adapter_model.bin").read_bytes())
    assert canary_path(tmp_path / "one").exists()


# memory


def read_all(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.read_bad_inputs", str(folder), str(ADDRESS_SPACE), *arguments]
    root = Path(__file__).parents[3]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.exhaustive
def test_bad_inputs_need_no_more_memory_than_their_bytes(tmp_path: Path):
    """Read and encode in a process with limited address space: trusting a declared size would raise MemoryError."""
    done = read_all(tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    # the base is given, so no base has to be resolved
    expected = {name: bad.code.replace("base_unresolved", "shape_mismatch") for name, bad in FOLDERS.items()}
    assert codes == expected


@pytest.mark.exhaustive
def test_trusting_a_declared_size_exhausts_the_memory(tmp_path: Path):
    done = read_all(tmp_path, "--believe")
    assert done.returncode != 0
    assert "MemoryError" in done.stderr or "allocate memory" in done.stderr


# the Hub


@pytest.fixture
def hub_pipeline(database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub) -> Pipeline:
    return make_pipeline(database, pico_base, tmp_path, endpoint=scripted_hub.url, **LIMITS)


def ingest_repo(database: Database, pipeline: Pipeline, repo_id: str) -> tuple[JobState, int, str | None]:
    job = submit_repo(database, RepoRef(repo_id))
    pipeline.ingest(job.id)
    return result_of(database, job.id)


def test_repo_of_50_000_files_is_refused_by_its_listing(
    database: Database, hub_pipeline: Pipeline, scripted_hub: ScriptedHub
):
    files = {f"file-{number}.json": 10 for number in range(50_000)}
    scripted_hub.script_listing("o/many", {"adapter_config.json": 10, "adapter_model.safetensors": 10, **files})
    assert ingest_repo(database, hub_pipeline, "o/many") == (JobState.FAILED, 1, "too_many_files")
    assert len(scripted_hub.requests) == 1


def test_file_over_the_size_limit_is_not_requested(
    database: Database, hub_pipeline: Pipeline, scripted_hub: ScriptedHub
):
    scripted_hub.script_listing("o/large", {"adapter_config.json": 10, "adapter_model.safetensors": LIMIT + 1})
    assert ingest_repo(database, hub_pipeline, "o/large") == (JobState.FAILED, 1, "file_too_large")
    assert len(scripted_hub.requests) == 1


@pytest.mark.parametrize(
    "path",
    ["../../.bashrc", "/etc/cron.d/job", "a/../../b.json", "C:\\run.json", "..\\x.json", "a//b.json", "a\0.json"],
)
def test_unsafe_paths_in_a_repo_are_refused(
    database: Database, hub_pipeline: Pipeline, scripted_hub: ScriptedHub, path: str
):
    scripted_hub.script_listing("o/tricks", {"adapter_config.json": 10, "adapter_model.safetensors": 10, path: 10})
    assert ingest_repo(database, hub_pipeline, "o/tricks") == (JobState.FAILED, 1, "unsafe_path")
    assert len(scripted_hub.requests) == 1


def test_gated_repo_fails_with_its_own_code(database: Database, hub_pipeline: Pipeline, scripted_hub: ScriptedHub):
    scripted_hub.answer("/api/models/o/gated", Answer(403, {"X-Error-Code": "GatedRepo"}))
    assert ingest_repo(database, hub_pipeline, "o/gated") == (JobState.FAILED, 1, "gated_repo")


def test_repo_of_pickles_is_refused_by_its_listing(
    database: Database, hub_pipeline: Pipeline, scripted_hub: ScriptedHub
):
    scripted_hub.script_listing("o/pickled", {"adapter_config.json": 10, "adapter_model.bin": 10})
    assert ingest_repo(database, hub_pipeline, "o/pickled") == (JobState.FAILED, 1, "pickled_weights")
    assert len(scripted_hub.requests) == 1


def test_next_folder_runs_after_bad_repos(
    database: Database, hub_pipeline: Pipeline, scripted_hub: ScriptedHub, tmp_path: Path
):
    scripted_hub.script_listing("o/pickled", {"adapter_config.json": 10, "adapter_model.bin": 10})
    ingest_repo(database, hub_pipeline, "o/pickled")
    good = submit_folder(database, pico.make_adapter(tmp_path / "good"))
    hub_pipeline.ingest(good.id)
    assert result_of(database, good.id)[0] == JobState.DONE
