from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from catalog.auth.viewer import ADMIN, PUBLIC
from catalog.database import Database
from catalog.jobs.submissions import submit_folder
from catalog.models.repository import models
from catalog.selections import repository as selections
from catalog.selections import service as selection_service
from catalog.selections.service import SelectionRequest
from catalog.selections.strategies import Strategy
from catalog.tables import Job, JobState, ModelState, Selection, Source
from catalog.tasks import service as task_service
from catalog.tasks.service import TaskRequest
from tests.support import pico
from tests.support.cancelling import cancel_at_first_report
from tests.support.pipeline import make_pipeline
from tests.support.task_runs import ANONYMOUS, EXAMPLES, QUICK
from workers.ingest.job_runner import JobRunner
from workers.ingest.pipeline import Pipeline
from workers.selections.runner import SelectionRunner

REQUEST = {"count": 2, "strategies": list(Strategy), "budget": 12}


@pytest.fixture
def pipeline(database: Database, pico_base: Path, tmp_path: Path) -> Pipeline:
    """With four indexed models and a finished task."""
    made = make_pipeline(database, pico_base, tmp_path)
    for number in range(4):
        made.ingest(submit_folder(database, pico.make_adapter(tmp_path / f"m{number}", seed=number)).id)
    question = TaskRequest(EXAMPLES, name="mine", keep_examples=True, training_config=QUICK)
    [job] = task_service.create(database, question, ANONYMOUS, PUBLIC)[1].values()
    made.ingest(job.id)
    return made


def create(database: Database, **more: object) -> tuple[int, Job]:
    selection, job = selection_service.create(database, SelectionRequest("mine", **REQUEST | more), ANONYMOUS, PUBLIC)
    return selection.id, job


def select(database: Database, pipeline: Pipeline, **more: object) -> tuple[Selection, Job]:
    selection_id, job = create(database, **more)
    assert pipeline.ingest(job.id) == 1
    return selection_service.get(database, selection_id, ADMIN)


def test_the_set_of_each_strategy_is_composed_and_evaluated(database: Database, pipeline: Pipeline):
    selection, job = select(database, pipeline)
    assert (job.state, job.error_code, job.progress) == (JobState.DONE, None, 1)
    metrics = selection.metrics
    assert (metrics["candidates"], metrics["examples"], metrics["holdout_examples"]) == (4, 6, 2)
    assert (metrics["left_out"], metrics["holdout_unseen"]) == ([], False)
    assert [result["strategy"] for result in metrics["strategies"]] == ["diverse", "nearest"]
    nearest = metrics["nearest_alone"]["repo_id"]
    for result in metrics["strategies"]:
        assert len({member["repo_id"] for member in result["members"]}) == 2
        assert result["members"][0]["repo_id"] == nearest
        assert result["holdout_loss"] > 0


def test_the_same_seed_gives_the_same_result(database: Database, pipeline: Pipeline):
    first, second = (select(database, pipeline)[0].metrics for _ in range(2))
    assert first["strategies"] == second["strategies"]


def test_another_seed_draws_other_examples(database: Database, pipeline: Pipeline):
    first, second = (select(database, pipeline, seed=seed)[0].metrics for seed in (0, 1))
    assert first["base_loss"] == second["base_loss"]
    losses = [[result["examples_loss"] for result in metrics["strategies"]] for metrics in (first, second)]
    assert losses[0] != losses[1]


def test_a_member_that_cannot_be_loaded_is_replaced(database: Database, pipeline: Pipeline, tmp_path: Path):
    (tmp_path / "m2" / "adapter_model.safetensors").unlink()
    selection, job = select(database, pipeline, count=3)
    assert job.state == JobState.DONE
    assert [each["repo_id"] for each in selection.metrics["left_out"]] == ["local/m2"]
    for result in selection.metrics["strategies"]:
        assert sorted(member["repo_id"] for member in result["members"]) == ["local/m0", "local/m1", "local/m3"]


def test_without_loadable_candidates_the_job_fails(database: Database, pipeline: Pipeline, tmp_path: Path):
    for number in range(4):
        (tmp_path / f"m{number}" / "adapter_model.safetensors").unlink()
    _, job = select(database, pipeline)
    assert (job.state, job.error_code) == (JobState.FAILED, "no_candidates")


@pytest.mark.usefixtures("pipeline")
def test_too_many_members_that_cannot_be_loaded_fail_the_job(database: Database, pico_base: Path, tmp_path: Path):
    def strict(*parts: Any) -> dict[Source, JobRunner]:
        return {Source.SELECTION: SelectionRunner(*parts, max_refused=0)}

    (tmp_path / "m2" / "adapter_model.safetensors").unlink()
    _, job = select(database, make_pipeline(database, pico_base, tmp_path, runners=strict), count=3)
    assert (job.state, job.error_code) == (JobState.FAILED, "no_candidates")


@pytest.mark.usefixtures("pipeline")
def test_a_cancelled_selection_stores_nothing(database: Database, pico_base: Path, tmp_path: Path):
    def cancelling(*parts: Any) -> dict[Source, JobRunner]:
        return {Source.SELECTION: SelectionRunner(*parts, reporter=cancel_at_first_report)}

    selection_id, job = create(database)
    make_pipeline(database, pico_base, tmp_path, runners=cancelling).ingest(job.id)
    selection, job = selection_service.get(database, selection_id, ADMIN)
    assert (job.state, selection.metrics) == (JobState.CANCELLED, None)


def test_a_selection_is_not_listed_as_a_model(database: Database, pipeline: Pipeline):
    select(database, pipeline)
    with database.transaction() as session:
        assert len(models.list_page(session, viewer=ADMIN)) == 4
        assert models.count_by_state(session)[ModelState.INDEXED] == 4


def test_adapters_of_other_kinds_are_not_selectable(database: Database, pipeline: Pipeline):
    with database.transaction() as session:
        model = models.get(session, "local/m1")
        model.revision.kind = "dora"
        session.flush()
        assert model.id not in selections.selectable_ids(session, pico.BASE_ID).tolist()
