"""Reindexes with the worker's own thread and pipeline, over adapters of a pico Llama."""

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
from catalog.reindexes.service import Selection, start
from catalog.spaces import repository as spaces
from catalog.spaces.probes import load_probes
from catalog.tables import Job, JobState, Reindex, ReindexState, Stage
from catalog.vectors.repository import vectors
from tests.support import pico
from tests.support.pipeline import make_pipeline
from tests.support.reindexes import EVERYTHING, EXACT, found, its_jobs, look
from workers.bases.residents import Contract
from workers.maintenance.reindexer import Reindexer

FEATURE = "delta_activations"
OTHER = "pico/other"


class Machine:
    """A worker: its pipeline and its reindexer."""

    def __init__(
        self,
        database: Database,
        bases_dir: Path,
        tmp_path: Path,
        *,
        dtype: str = "float32",
        aliases: Mapping[str, str] | None = None,
        queue: int = 1_000,
    ) -> None:
        self.database = database
        contract = Contract(load_probes(), (FEATURE,), dtype=dtype)
        self.pipeline = make_pipeline(database, bases_dir, tmp_path, contract=contract, aliases=aliases)
        self.reindexer = Reindexer(database, contract.spaces(), queue=queue, exact_bytes=EXACT, build_look=0)

    def add(self, *folders: Path) -> None:
        for folder in folders:
            self.pipeline.ingest(submit_folder(self.database, folder).id)

    def work(self) -> None:
        """Do all that waits."""
        with self.database.transaction() as session:
            waiting = claims.oldest_due(session)
        if waiting is not None:
            self.pipeline.ingest(waiting)

    def run(self, reindex_id: int) -> Reindex:
        """Go on until nothing is left to do."""
        for _ in range(50):
            self.reindexer.step()
            self.work()
            row = look(self.database, reindex_id)
            if row.state != ReindexState.RUNNING and row.stage is None:
                return row
        raise AssertionError(f"reindex {reindex_id} is {row.state}, {row.stage}")


@pytest.fixture
def machine(database: Database, pico_base: Path, tmp_path: Path) -> Machine:
    return Machine(database, pico_base, tmp_path)


@pytest.fixture
def two_bases(pico_base: Path, tmp_path: Path) -> Path:
    bases = tmp_path / "bases"
    shutil.copytree(pico_base, bases)
    pico.make_base(bases / OTHER, seed=1)
    return bases


def adapters(tmp_path: Path, count: int, first: int = 0) -> list[Path]:
    return [pico.make_adapter(tmp_path / f"m{seed}", seed=seed) for seed in range(first, first + count)]


def put_off(database: Database, reindex_id: int, hours: int) -> None:
    """Have the jobs of a reindex wait for so long."""
    later = func.now() + func.make_interval(0, 0, 0, 0, hours)
    with database.transaction() as session:
        session.execute(update(Job).where(Job.reindex_id == reindex_id).values(available_at=later))


def newest(database: Database, repo_id: str, **options: object) -> vectors.Stored:
    with database.transaction() as session:
        return vectors.newest(session, repo_id, features=(FEATURE,), **options)


def test_the_same_contract_is_measured_anew_beside_and_switched_to(
    database: Database, machine: Machine, tmp_path: Path
):
    machine.add(*adapters(tmp_path, 4))
    before = newest(database, "local/m0")
    reindex_id = start(database, EVERYTHING).id

    row = machine.run(reindex_id)

    assert (row.state, row.total, row.queued, row.carried) == (ReindexState.READY, 4, 4, 0)
    assert {job.state for job in its_jobs(database, reindex_id)} == {JobState.DONE}
    assert newest(database, "local/m0").space.key == before.space.key
    [told] = row.report
    assert (told["drift"]["overlap"]["mean"], told["lost"]["count"]) == (1, 0)
    assert told["drift"]["cosine"]["mean"] == pytest.approx(1)

    cutover.switch(database, reindex_id, exact_bytes=EXACT)
    after = newest(database, "local/m0")
    assert (after.space.edition, after.revision.sha) == (reindex_id, before.revision.sha)
    assert after.noise_floor == before.noise_floor
    assert after.vector == pytest.approx(before.vector, abs=1e-4)


def test_what_people_add_meanwhile_is_found_at_once_and_after_the_switch(
    database: Database, machine: Machine, tmp_path: Path
):
    first, second, third = adapters(tmp_path, 3)
    machine.add(first)
    reindex_id = start(database, EVERYTHING).id
    machine.reindexer.step()
    machine.add(second)
    assert newest(database, "local/m1").space.serving
    assert machine.run(reindex_id).carried == 1
    machine.add(third)

    cutover.switch(database, reindex_id, exact_bytes=EXACT)

    for name in ("local/m0", "local/m1", "local/m2"):
        assert newest(database, name).space.edition == reindex_id
    machine.add(*adapters(tmp_path, 1, first=9))
    assert newest(database, "local/m9").space.edition == reindex_id


def test_another_contract_takes_over_with_a_reindex_and_not_before(
    database: Database, machine: Machine, pico_base: Path, tmp_path: Path
):
    machine.add(*adapters(tmp_path, 3))
    later = Machine(database, pico_base, tmp_path, dtype="bfloat16")
    later.add(*adapters(tmp_path, 1, first=7))
    with database.transaction() as session:
        assert spaces.newest(session).dtype == "float32"
    assert newest(database, "local/m7").space.dtype == "bfloat16"  # where it is, until the others are there too

    reindex_id = start(database, Selection(outdated=True)).id
    row = later.run(reindex_id)

    assert (row.queued, row.carried) == (3, 1)
    cutover.switch(database, reindex_id, exact_bytes=EXACT)
    with database.transaction() as session:
        serves = spaces.newest(session)
        assert (serves.dtype, serves.edition) == ("bfloat16", reindex_id)
    assert {newest(database, f"local/m{n}").space.id for n in (0, 1, 2, 7)} == {serves.id}


def test_a_worker_that_measures_something_else_leaves_the_job_to_others(
    database: Database, machine: Machine, pico_base: Path, tmp_path: Path
):
    machine.add(*adapters(tmp_path, 1))
    reindex_id = start(database, EVERYTHING).id
    machine.reindexer.step()

    Machine(database, pico_base, tmp_path, dtype="bfloat16").work()

    [job] = its_jobs(database, reindex_id)
    assert (job.state, job.error_code) == (JobState.QUEUED, "contract_differs")
    with database.transaction() as session:
        session.execute(update(Job).values(available_at=func.now()))
    assert machine.run(reindex_id).state == ReindexState.READY


def test_a_folder_that_holds_something_else_by_now_keeps_its_old_vector(
    database: Database, machine: Machine, tmp_path: Path
):
    folders = adapters(tmp_path, 2)
    machine.add(*folders)
    before = newest(database, "local/m0")
    pico.make_adapter(folders[0], seed=5)
    reindex_id = start(database, EVERYTHING).id

    row = machine.run(reindex_id)

    with database.transaction() as session:
        [failed] = reindexes.failures(session, reindex_id)
    assert (failed.code, failed.repo_ids) == ("revision_not_found", ["local/m0"])
    assert (row.state, row.carried) == (ReindexState.READY, 1)
    cutover.switch(database, reindex_id, exact_bytes=EXACT)
    assert (newest(database, "local/m0").vector == before.vector).all()


def test_a_newer_revision_is_carried_over_and_the_older_one_not_measured(
    database: Database, machine: Machine, tmp_path: Path
):
    folder, other = adapters(tmp_path, 2)
    machine.add(folder, other)
    reindex_id = start(database, EVERYTHING).id
    machine.reindexer.step()
    put_off(database, reindex_id, hours=1)
    pico.make_adapter(folder, seed=5)
    machine.add(folder)
    put_off(database, reindex_id, hours=0)
    newer = newest(database, "local/m0")

    machine.run(reindex_id)
    cutover.switch(database, reindex_id, exact_bytes=EXACT)

    assert {job.state for job in its_jobs(database, reindex_id)} == {JobState.DONE}
    after = newest(database, "local/m0")
    assert (after.revision.sha, after.space.edition) == (newer.revision.sha, reindex_id)
    assert (after.vector == newer.vector).all()


def test_a_base_that_is_resolved_to_another_moves_its_models_with_the_switch(
    database: Database, two_bases: Path, tmp_path: Path
):
    machine = Machine(database, two_bases, tmp_path)
    machine.add(*adapters(tmp_path, 2))
    old = newest(database, "local/m0").space
    corrected = Machine(database, two_bases, tmp_path, aliases={pico.BASE_ID: OTHER})
    reindex_id = start(database, Selection(base=pico.BASE_ID)).id
    corrected.run(reindex_id)
    assert newest(database, "local/m0").space.key == old.key

    cutover.switch(database, reindex_id, exact_bytes=EXACT)

    with database.transaction() as session:
        model = models.get(session, "local/m0")
        assert (model.revision.base_repo, model.revision.base_evidence["source"]) == (OTHER, "alias")
    assert newest(database, "local/m0").space.base_repo == OTHER
    assert found(database, spaces.contract_of(old)) == {}


def test_models_that_failed_before_are_found_as_soon_as_they_are_measured(
    database: Database, pico_base: Path, tmp_path: Path
):
    folder = pico.make_adapter(tmp_path / "lost", base=None, hidden=48)
    machine = Machine(database, pico_base, tmp_path)
    machine.add(folder)
    pico.make_adapter(folder)
    reindex_id = start(database, Selection(state="failed")).id

    assert machine.run(reindex_id).state == ReindexState.SWITCHED
    assert newest(database, "local/lost").space.serving


def test_a_reindex_waits_while_the_queue_is_full(database: Database, pico_base: Path, tmp_path: Path):
    machine = Machine(database, pico_base, tmp_path, queue=100)
    machine.add(*adapters(tmp_path, 1))
    waiting = submit_folder(database, pico.make_adapter(tmp_path / "waits", seed=3))
    reindex_id = start(database, EVERYTHING).id

    assert not machine.reindexer.step()
    assert look(database, reindex_id).total is None
    machine.pipeline.ingest(waiting.id)
    assert machine.reindexer.step()
    assert look(database, reindex_id).total == 2


def test_one_worker_leads(database: Database, machine: Machine, tmp_path: Path):
    machine.add(*adapters(tmp_path, 1))
    start(database, EVERYTHING)
    with database.transaction() as session:
        assert reindexes.try_lead(session)
        assert not machine.reindexer.step()
    assert machine.reindexer.step()


def test_what_a_worker_measures_of_a_cancelled_reindex_is_not_stored(
    database: Database, machine: Machine, tmp_path: Path
):
    machine.add(*adapters(tmp_path, 2))
    reindex_id = start(database, EVERYTHING).id
    machine.reindexer.step()
    cutover.cancel(database, reindex_id)

    machine.work()

    assert {job.state for job in its_jobs(database, reindex_id)} == {JobState.CANCELLED}
    row = machine.run(reindex_id)
    assert (row.state, row.stage) == (ReindexState.CANCELLED, None)
    with database.transaction() as session:
        assert [space.edition for space in spaces.page(session)] == [0]


def test_a_selection_that_cannot_be_followed_any_more_fails(database: Database, machine: Machine, tmp_path: Path):
    machine.add(*adapters(tmp_path, 1))
    with database.transaction() as session:
        key = spaces.newest(session).key
    reindex_id = start(database, Selection(space=key)).id
    with database.transaction() as session:
        reindexes.get(session, reindex_id).selection = {"space": "0" * 64}

    machine.reindexer.step()

    row = look(database, reindex_id)
    assert (row.state, row.stage, row.error_code) == (ReindexState.FAILED, None, "space_not_found")
    assert cutover.cancel(database, reindex_id).stage == Stage.DISCARDING


def test_its_thread_does_it_all(database: Database, machine: Machine, tmp_path: Path):
    machine.add(*adapters(tmp_path, 1))
    with database.transaction() as session:
        model_id = jobs.page(session)[0].model_id
    reindex_id = start(database, EVERYTHING).id
    machine.reindexer.start()
    try:
        while look(database, reindex_id).state == ReindexState.RUNNING:  # pytest's own timeout ends it
            machine.work()
    finally:
        machine.reindexer.stop()
    assert [job.model_id for job in its_jobs(database, reindex_id)] == [model_id]


def test_a_space_of_a_reindex_has_what_was_measured_of_its_base(database: Database, machine: Machine, tmp_path: Path):
    machine.add(*adapters(tmp_path, 1))
    reindex_id = start(database, EVERYTHING).id
    machine.run(reindex_id)
    stored = newest(database, "local/m0")
    beside = dataclasses.replace(spaces.contract_of(stored.space), edition=reindex_id)
    with database.transaction() as session:
        own, other = (
            spaces.base_table(session, space, stored.revision.base_repo, stored.revision.base_sha)
            for space in (beside, spaces.contract_of(stored.space))
        )
    assert (own.activations == other.activations).all()
