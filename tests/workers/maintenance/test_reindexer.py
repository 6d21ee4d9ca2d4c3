"""Reindexes with the worker's thread and pipeline, over adapters of a pico Llama."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import func, update

from catalog.database import Database
from catalog.jobs.repository import claims, jobs
from catalog.jobs.submissions import submit_folder
from catalog.models.repository import models
from catalog.reindexes import cutover
from catalog.reindexes.repository import reindexes
from catalog.reindexes.service import ReindexSelection, create
from catalog.spaces import repository as spaces
from catalog.spaces.probes import load_probes
from catalog.tables import Job, JobState, Reindex, ReindexState, Stage
from catalog.vectors.repository import vectors
from tests.support import pico
from tests.support.pipeline import make_pipeline
from tests.support.reindexes import EVERYTHING, EXACT_BYTES, get_reindex, list_jobs, vectors_by_model
from workers.bases.residents import MeasurementSettings
from workers.maintenance.reindexer import Reindexer

FEATURE = "delta_activations"
OTHER = "pico/other"


class Worker:
    """A worker's pipeline and reindexer."""

    def __init__(
        self,
        database: Database,
        bases_dir: Path,
        tmp_path: Path,
        *,
        dtype: str = "float32",
        aliases: Mapping[str, str] | None = None,
        max_queued: int = 1_000,
    ) -> None:
        self.database = database
        measurement = MeasurementSettings(load_probes(), (FEATURE,), dtype=dtype)
        self.pipeline = make_pipeline(database, bases_dir, tmp_path, measurement=measurement, aliases=aliases)
        self.reindexer = Reindexer(
            database, measurement.spaces(), max_queued=max_queued, exact_bytes=EXACT_BYTES, readiness_interval=0
        )

    def add(self, *folders: Path) -> None:
        for folder in folders:
            self.pipeline.ingest(submit_folder(self.database, folder).id)

    def work(self) -> None:
        """Run the queued jobs."""
        with self.database.transaction() as session:
            job_id = claims.find_oldest_due(session)
        if job_id is not None:
            self.pipeline.ingest(job_id)

    def run(self, reindex_id: int) -> Reindex:
        """Run steps and jobs until the reindex has no work left."""
        for _ in range(50):
            self.reindexer.step()
            self.work()
            row = get_reindex(self.database, reindex_id)
            if row.state != ReindexState.RUNNING and row.stage is None:
                return row
        raise AssertionError(f"reindex {reindex_id} is {row.state}, {row.stage}")


@pytest.fixture
def worker(database: Database, pico_base: Path, tmp_path: Path) -> Worker:
    return Worker(database, pico_base, tmp_path)


@pytest.fixture
def two_bases(pico_base: Path, tmp_path: Path) -> Path:
    bases = tmp_path / "bases"
    shutil.copytree(pico_base, bases)
    pico.make_base(bases / OTHER, seed=1)
    return bases


def adapters(tmp_path: Path, count: int, first: int = 0) -> list[Path]:
    return [pico.make_adapter(tmp_path / f"m{seed}", seed=seed) for seed in range(first, first + count)]


def delay_jobs(database: Database, reindex_id: int, hours: int) -> None:
    """Make the jobs of a reindex available in so many hours."""
    available_at = func.now() + func.make_interval(0, 0, 0, 0, hours)
    with database.transaction() as session:
        session.execute(update(Job).where(Job.reindex_id == reindex_id).values(available_at=available_at))


def encoding_of(database: Database, repo_id: str, **options: object) -> vectors.StoredEncoding:
    with database.transaction() as session:
        return vectors.get_encoding(session, repo_id, features=(FEATURE,), **options)


def test_reindex_under_the_same_contract_measures_a_new_space_and_cuts_over(
    database: Database, worker: Worker, tmp_path: Path
):
    worker.add(*adapters(tmp_path, 4))
    before = encoding_of(database, "local/m0")
    reindex_id = create(database, EVERYTHING).id

    row = worker.run(reindex_id)

    assert (row.state, row.total, row.queued, row.backfilled) == (ReindexState.READY, 4, 4, 0)
    assert {job.state for job in list_jobs(database, reindex_id)} == {JobState.DONE}
    assert encoding_of(database, "local/m0").space.key == before.space.key
    [pair] = row.report
    assert (pair["drift"]["overlap"]["mean"], pair["lost_models"]["count"]) == (1, 0)
    assert pair["drift"]["cosine"]["mean"] == pytest.approx(1)

    cutover.cut_over(database, reindex_id, exact_bytes=EXACT_BYTES)
    after = encoding_of(database, "local/m0")
    assert (after.space.edition, after.revision.sha) == (reindex_id, before.revision.sha)
    assert after.noise_floor == before.noise_floor
    assert after.vector == pytest.approx(before.vector, abs=1e-4)


def test_model_added_during_a_reindex_is_found_at_once_and_after_the_cutover(
    database: Database, worker: Worker, tmp_path: Path
):
    first, second, third = adapters(tmp_path, 3)
    worker.add(first)
    reindex_id = create(database, EVERYTHING).id
    worker.reindexer.step()
    worker.add(second)
    assert encoding_of(database, "local/m1").space.serving
    assert worker.run(reindex_id).backfilled == 1
    worker.add(third)

    cutover.cut_over(database, reindex_id, exact_bytes=EXACT_BYTES)

    for name in ("local/m0", "local/m1", "local/m2"):
        assert encoding_of(database, name).space.edition == reindex_id
    worker.add(*adapters(tmp_path, 1, first=9))
    assert encoding_of(database, "local/m9").space.edition == reindex_id


def test_new_contract_serves_only_after_a_reindex(database: Database, worker: Worker, pico_base: Path, tmp_path: Path):
    worker.add(*adapters(tmp_path, 3))
    later = Worker(database, pico_base, tmp_path, dtype="bfloat16")
    later.add(*adapters(tmp_path, 1, first=7))
    with database.transaction() as session:
        assert spaces.get_default(session).dtype == "float32"
    assert encoding_of(database, "local/m7").space.dtype == "bfloat16"  # its only space so far

    reindex_id = create(database, ReindexSelection(outdated=True)).id
    row = later.run(reindex_id)

    assert (row.queued, row.backfilled) == (3, 1)
    cutover.cut_over(database, reindex_id, exact_bytes=EXACT_BYTES)
    with database.transaction() as session:
        serving = spaces.get_default(session)
        assert (serving.dtype, serving.edition) == ("bfloat16", reindex_id)
    assert {encoding_of(database, f"local/m{n}").space.id for n in (0, 1, 2, 7)} == {serving.id}


def test_worker_with_another_contract_leaves_the_job_queued(
    database: Database, worker: Worker, pico_base: Path, tmp_path: Path
):
    worker.add(*adapters(tmp_path, 1))
    reindex_id = create(database, EVERYTHING).id
    worker.reindexer.step()

    Worker(database, pico_base, tmp_path, dtype="bfloat16").work()

    [job] = list_jobs(database, reindex_id)
    assert (job.state, job.error_code) == (JobState.QUEUED, "encoder_contract_mismatch")
    with database.transaction() as session:
        session.execute(update(Job).values(available_at=func.now()))
    assert worker.run(reindex_id).state == ReindexState.READY


def test_changed_folder_keeps_its_old_vector(database: Database, worker: Worker, tmp_path: Path):
    folders = adapters(tmp_path, 2)
    worker.add(*folders)
    before = encoding_of(database, "local/m0")
    pico.make_adapter(folders[0], seed=5)
    reindex_id = create(database, EVERYTHING).id

    row = worker.run(reindex_id)

    with database.transaction() as session:
        [failures] = reindexes.list_failures(session, reindex_id)
    assert (failures.code, failures.repo_ids) == ("revision_not_found", ["local/m0"])
    assert (row.state, row.backfilled) == (ReindexState.READY, 1)
    cutover.cut_over(database, reindex_id, exact_bytes=EXACT_BYTES)
    assert (encoding_of(database, "local/m0").vector == before.vector).all()


def test_newer_revision_is_backfilled_and_the_older_one_not_measured(
    database: Database, worker: Worker, tmp_path: Path
):
    folder, other = adapters(tmp_path, 2)
    worker.add(folder, other)
    reindex_id = create(database, EVERYTHING).id
    worker.reindexer.step()
    delay_jobs(database, reindex_id, hours=1)
    pico.make_adapter(folder, seed=5)
    worker.add(folder)
    delay_jobs(database, reindex_id, hours=0)
    newer = encoding_of(database, "local/m0")

    worker.run(reindex_id)
    cutover.cut_over(database, reindex_id, exact_bytes=EXACT_BYTES)

    assert {job.state for job in list_jobs(database, reindex_id)} == {JobState.DONE}
    after = encoding_of(database, "local/m0")
    assert (after.revision.sha, after.space.edition) == (newer.revision.sha, reindex_id)
    assert (after.vector == newer.vector).all()


def test_model_resolved_to_another_base_moves_with_the_cutover(database: Database, two_bases: Path, tmp_path: Path):
    worker = Worker(database, two_bases, tmp_path)
    worker.add(*adapters(tmp_path, 2))
    old = encoding_of(database, "local/m0").space
    corrected = Worker(database, two_bases, tmp_path, aliases={pico.BASE_ID: OTHER})
    reindex_id = create(database, ReindexSelection(base=pico.BASE_ID)).id
    corrected.run(reindex_id)
    assert encoding_of(database, "local/m0").space.key == old.key

    cutover.cut_over(database, reindex_id, exact_bytes=EXACT_BYTES)

    with database.transaction() as session:
        model = models.get(session, "local/m0")
        assert (model.revision.base_repo, model.revision.base_evidence["source"]) == (OTHER, "alias")
    assert encoding_of(database, "local/m0").space.base_repo == OTHER
    assert vectors_by_model(database, spaces.to_space(old)) == {}


def test_models_that_failed_before_are_found_once_measured(database: Database, pico_base: Path, tmp_path: Path):
    folder = pico.make_adapter(tmp_path / "lost", base=None, hidden=48)
    worker = Worker(database, pico_base, tmp_path)
    worker.add(folder)
    pico.make_adapter(folder)
    reindex_id = create(database, ReindexSelection(state="failed")).id

    assert worker.run(reindex_id).state == ReindexState.CUT_OVER
    assert encoding_of(database, "local/lost").space.serving


def test_reindex_waits_while_the_queue_is_full(database: Database, pico_base: Path, tmp_path: Path):
    worker = Worker(database, pico_base, tmp_path, max_queued=100)
    worker.add(*adapters(tmp_path, 1))
    queued = submit_folder(database, pico.make_adapter(tmp_path / "queued", seed=3))
    reindex_id = create(database, EVERYTHING).id

    assert not worker.reindexer.step()
    assert get_reindex(database, reindex_id).total is None
    worker.pipeline.ingest(queued.id)
    assert worker.reindexer.step()
    assert get_reindex(database, reindex_id).total == 2


def test_only_one_worker_runs_reindexes(database: Database, worker: Worker, tmp_path: Path):
    worker.add(*adapters(tmp_path, 1))
    create(database, EVERYTHING)
    with database.transaction() as session:
        assert reindexes.try_lock(session)
        assert not worker.reindexer.step()
    assert worker.reindexer.step()


def test_results_for_a_cancelled_reindex_are_not_stored(database: Database, worker: Worker, tmp_path: Path):
    worker.add(*adapters(tmp_path, 2))
    reindex_id = create(database, EVERYTHING).id
    worker.reindexer.step()
    cutover.cancel(database, reindex_id)

    worker.work()

    assert {job.state for job in list_jobs(database, reindex_id)} == {JobState.CANCELLED}
    row = worker.run(reindex_id)
    assert (row.state, row.stage) == (ReindexState.CANCELLED, None)
    with database.transaction() as session:
        assert [space.edition for space in spaces.list_visible(session)] == [0]


def test_selection_of_a_space_that_no_longer_exists_fails(database: Database, worker: Worker, tmp_path: Path):
    worker.add(*adapters(tmp_path, 1))
    with database.transaction() as session:
        key = spaces.get_default(session).key
    reindex_id = create(database, ReindexSelection(space=key)).id
    with database.transaction() as session:
        reindexes.get(session, reindex_id).selection = {"space": "0" * 64}

    worker.reindexer.step()

    row = get_reindex(database, reindex_id)
    assert (row.state, row.stage, row.error_code) == (ReindexState.FAILED, None, "space_not_found")
    assert cutover.cancel(database, reindex_id).stage == Stage.DISCARDING


def test_thread_runs_a_whole_reindex(database: Database, worker: Worker, tmp_path: Path):
    worker.add(*adapters(tmp_path, 1))
    with database.transaction() as session:
        model_id = jobs.list_page(session)[0].model_id
    reindex_id = create(database, EVERYTHING).id
    worker.reindexer.start()
    try:
        while get_reindex(database, reindex_id).state == ReindexState.RUNNING:  # until pytest's timeout
            worker.work()
    finally:
        worker.reindexer.stop()
    assert [job.model_id for job in list_jobs(database, reindex_id)] == [model_id]


def test_new_space_has_the_activations_of_its_base(database: Database, worker: Worker, tmp_path: Path):
    worker.add(*adapters(tmp_path, 1))
    reindex_id = create(database, EVERYTHING).id
    worker.run(reindex_id)
    stored = encoding_of(database, "local/m0")
    new_space = dataclasses.replace(spaces.to_space(stored.space), edition=reindex_id)
    with database.transaction() as session:
        new, old = (
            spaces.find_base_measurement(session, space, stored.revision.base_repo, stored.revision.base_sha)
            for space in (new_space, spaces.to_space(stored.space))
        )
    assert (new.activations == old.activations).all()


def test_way_back_to_a_revision_while_a_reindex_is_ready_reaches_its_new_space(
    database: Database, worker: Worker, tmp_path: Path
):
    worker.add(*adapters(tmp_path, 4))
    first = encoding_of(database, "local/m0")
    reindex_id = create(database, EVERYTHING).id
    assert worker.run(reindex_id).state == ReindexState.READY
    for seed in (9, 0):
        shutil.rmtree(tmp_path / "m0")
        worker.add(pico.make_adapter(tmp_path / "m0", seed=seed))
        while worker.reindexer.step():
            pass

    cutover.cut_over(database, reindex_id, exact_bytes=EXACT_BYTES)

    after = encoding_of(database, "local/m0")
    assert (after.space.edition, after.revision.sha, after.revision.current) == (reindex_id, first.revision.sha, True)
    assert after.vector == pytest.approx(first.vector, rel=1e-3, abs=1e-5)
