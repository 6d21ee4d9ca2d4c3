from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.auth.viewer import EVERYTHING, PUBLIC
from catalog.database import Database
from catalog.jobs.submissions import submit_folder
from catalog.models.repository import models
from catalog.selections import repository as selections
from catalog.selections import service as selection_service
from catalog.selections.service import Wish
from catalog.tables import Job, JobState, ModelState, Selection, Source
from catalog.tasks import service as task_service
from catalog.tasks.service import Question
from tests.support import pico
from tests.support.cancelling import cancel_at_first_report
from tests.support.pipeline import make_pipeline
from tests.support.task_runs import EXAMPLES, NOBODY, QUICK
from workers.ingest.exclusive import JobRunner
from workers.ingest.pipeline import Pipeline
from workers.selections.runner import SelectionRunner

WISH = {"count": 2, "seeds": 2, "budget": 12}


@pytest.fixture
def pipeline(database: Database, pico_base: Path, tmp_path: Path) -> Pipeline:
    """With four models indexed, and a task done."""
    made = make_pipeline(database, pico_base, tmp_path)
    for number in range(4):
        made.ingest(submit_folder(database, pico.make_adapter(tmp_path / f"m{number}", seed=number)).id)
    question = Question(EXAMPLES, name="mine", keep_examples=True, recipe=QUICK)
    [job] = task_service.ask(database, question, NOBODY, PUBLIC)[1].values()
    made.ingest(job.id)
    return made


def ask(database: Database, **more: object) -> tuple[int, Job]:
    selection, job = selection_service.ask(database, Wish("mine", **WISH | more), NOBODY, PUBLIC)
    return selection.id, job


def select(database: Database, pipeline: Pipeline, **more: object) -> tuple[Selection, Job]:
    number, job = ask(database, **more)
    assert pipeline.ingest(job.id) == 1
    return selection_service.get(database, number, EVERYTHING)


def test_every_arm_is_composed_and_judged(database: Database, pipeline: Pipeline):
    selection, job = select(database, pipeline)
    assert (job.state, job.error_code, job.progress) == (JobState.DONE, None, 1)
    figures = selection.figures
    assert (figures["candidates"], figures["examples"], figures["held_out"]) == (4, 6, 2)
    assert (figures["left_out"], figures["held_out_unseen"]) == ([], False)
    assert [each["arm"] for each in figures["arms"]] == ["nearest", "anchored", "diverse", "random"]
    nearest = figures["nearest_alone"]["repo_id"]
    for arm in figures["arms"]:
        assert [each["seed"] for each in arm["sets"]] == [0, 1]
        assert all(len({module["repo_id"] for module in each["modules"]}) == 2 for each in arm["sets"])
        losses = [each["held_out_loss"] for each in arm["sets"]]
        assert arm["held_out_loss"]["mean"] == pytest.approx(np.mean(losses), abs=1e-3)
        if arm["arm"] != "random":
            assert all(each["modules"][0]["repo_id"] == nearest for each in arm["sets"])
            assert arm["beside_random"]["low"] <= arm["beside_random"]["mean"] <= arm["beside_random"]["high"]


def test_the_same_seeds_give_the_same_sets(database: Database, pipeline: Pipeline):
    first, second = (select(database, pipeline)[0].figures for _ in range(2))
    assert first["arms"] == second["arms"]


def test_what_cannot_be_had_is_left_out_and_another_takes_its_place(
    database: Database, pipeline: Pipeline, tmp_path: Path
):
    (tmp_path / "m2" / "adapter_model.safetensors").unlink()
    selection, job = select(database, pipeline, count=3)
    assert job.state == JobState.DONE
    assert [each["repo_id"] for each in selection.figures["left_out"]] == ["local/m2"]
    for arm in selection.figures["arms"]:
        for each in arm["sets"]:
            assert sorted(module["repo_id"] for module in each["modules"]) == ["local/m0", "local/m1", "local/m3"]


def test_where_nothing_can_be_had_that_is_told(database: Database, pipeline: Pipeline, tmp_path: Path):
    for number in range(4):
        (tmp_path / f"m{number}" / "adapter_model.safetensors").unlink()
    _, job = select(database, pipeline)
    assert (job.state, job.error_code) == (JobState.FAILED, "no_candidates")


@pytest.mark.usefixtures("pipeline")
def test_it_gives_up_where_too_many_cannot_be_had(database: Database, pico_base: Path, tmp_path: Path):
    def strict(*parts: Any) -> dict[Source, JobRunner]:
        return {Source.SELECTION: SelectionRunner(*parts, max_refused=0)}

    (tmp_path / "m2" / "adapter_model.safetensors").unlink()
    _, job = select(database, make_pipeline(database, pico_base, tmp_path, runners=strict), count=3)
    assert (job.state, job.error_code) == (JobState.FAILED, "no_candidates")


@pytest.mark.usefixtures("pipeline")
def test_a_cancelled_selection_stores_nothing(database: Database, pico_base: Path, tmp_path: Path):
    def cancelling(*parts: Any) -> dict[Source, JobRunner]:
        return {Source.SELECTION: SelectionRunner(*parts, reporter=cancel_at_first_report)}

    number, job = ask(database)
    make_pipeline(database, pico_base, tmp_path, runners=cancelling).ingest(job.id)
    selection, job = selection_service.get(database, number, EVERYTHING)
    assert (job.state, selection.figures) == (JobState.CANCELLED, None)


def test_it_is_no_model_of_the_catalog(database: Database, pipeline: Pipeline):
    select(database, pipeline)
    with database.transaction() as session:
        assert len(models.page(session, viewer=EVERYTHING)) == 4
        assert models.counts(session)[ModelState.INDEXED] == 4


def test_adapters_of_other_kinds_are_no_candidates(database: Database, pipeline: Pipeline):
    with database.transaction() as session:
        model = models.get(session, "local/m1")
        model.revision.kind = "dora"
        session.flush()
        assert model.id not in selections.choosable(session, pico.BASE_ID).tolist()
