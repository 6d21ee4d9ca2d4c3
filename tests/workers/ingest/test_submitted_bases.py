"""Submissions that name the base model, from the job to the index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from catalog.database import Database
from catalog.index.follower import IndexFollower
from catalog.jobs import submissions
from catalog.jobs.repository import jobs
from catalog.models import history
from catalog.models.repository import models
from catalog.search import service as search_service
from catalog.search.service import SearchOptions
from catalog.spaces.probes import load_probes
from catalog.tables import Job, JobState, Revision
from catalog.vectors.repository import vectors
from tests.support import pico
from tests.support.pipeline import make_pipeline
from workers.bases.residents import MeasurementSettings
from workers.ingest.pipeline import Pipeline

OTHER = "pico/other"
ON_A_DISK = "/root/llama"  # where the author trained
NAME = "local/one"


@pytest.fixture
def bases(pico_base: Path, tmp_path: Path) -> Path:
    """Two bases of the same shapes, so that an adapter fits both."""
    folder = tmp_path / "bases"
    shutil.copytree(pico_base, folder)
    pico.make_base(folder / OTHER, seed=1)
    return folder


@pytest.fixture
def pipeline(database: Database, bases: Path, tmp_path: Path) -> Pipeline:
    return make_pipeline(database, bases, tmp_path, aliases={"pico/mirror": OTHER})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pico.make_adapter(tmp_path / "one", base=ON_A_DISK)


def declare(folder: Path, base: str) -> None:
    """Change the base in an adapter's config, which also changes the content's sha."""
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))


def ingest(database: Database, pipeline: Pipeline, folder: Path, base: str | None = None) -> Job:
    """Submit a folder and run its job."""
    job = submissions.submit_folder(database, folder, base=base)
    pipeline.ingest(job.id)
    with database.transaction() as session:
        return jobs.get(session, job.id)


def current_revision(database: Database) -> Revision:
    with database.transaction() as session:
        revision = models.get(session, NAME).revision
    assert revision is not None
    return revision


def stored_vector(database: Database) -> bytes:
    with database.transaction() as session:
        return vectors.get_encoding(session, NAME).vector.tobytes()


def test_refused_model_is_searchable_once_its_base_is_submitted(database: Database, pipeline: Pipeline, folder: Path):
    refused = ingest(database, pipeline, folder)
    assert refused.error_code == "base_unresolved"
    assert "base_model" in (refused.error_message or "")
    assert "deltadex add --base" in (refused.error_message or "")

    accepted = ingest(database, pipeline, folder, OTHER)
    ingest(database, pipeline, pico.make_adapter(folder.parent / "two", seed=1, base=OTHER))

    assert (accepted.state, accepted.requested_base) == (JobState.DONE, OTHER)
    index = IndexFollower(database, interval=3600)
    index.sync()
    answer = search_service.by_model(database, index, NAME, SearchOptions(include_low_confidence=True))
    assert [neighbor.model.repo_id for neighbor in answer.neighbors] == ["local/two"]


def test_evidence_has_the_submitted_base_beside_the_declared_one(database: Database, pipeline: Pipeline, folder: Path):
    ingest(database, pipeline, folder, OTHER)
    evidence = current_revision(database).base_evidence
    assert (evidence["source"], evidence["claim"]) == ("submitted", "submitted")
    assert (evidence["submitted_base"], evidence["declared"]) == (OTHER, ON_A_DISK)


def test_submitted_base_gives_the_vector_of_the_declared_one(database: Database, pipeline: Pipeline, folder: Path):
    ingest(database, pipeline, folder, OTHER)
    submitted = stored_vector(database)
    declare(folder, OTHER)
    ingest(database, pipeline, folder)
    assert stored_vector(database) == submitted


def test_submitted_base_precedes_a_declared_one_that_fits(database: Database, pipeline: Pipeline, folder: Path):
    declare(folder, pico.BASE_ID)
    ingest(database, pipeline, folder, OTHER)
    assert current_revision(database).base_repo == OTHER


def test_submitted_base_that_cannot_be_used_is_noted_and_the_declared_one_used(
    database: Database, pipeline: Pipeline, bases: Path, folder: Path
):
    shutil.copytree(bases / OTHER, bases / "pico/quantized")
    config = json.loads((bases / OTHER / "config.json").read_text())
    quantized = {**config, "quantization_config": {"quant_method": "gptq"}}
    (bases / "pico/quantized/config.json").write_text(json.dumps(quantized))
    declare(folder, pico.BASE_ID)

    assert ingest(database, pipeline, folder, "pico/quantized").state == JobState.DONE

    revision = current_revision(database)
    assert (revision.base_repo, revision.submitted_base) == (pico.BASE_ID, None)
    [note] = (revision.facts or {})["notes"]
    assert "pico/quantized" in note


def test_model_moves_to_another_submitted_base(database: Database, pipeline: Pipeline, folder: Path):
    for base in (OTHER, pico.BASE_ID, OTHER):
        ingest(database, pipeline, folder, base)
        assert current_revision(database).base_repo == base
        with database.transaction() as session:
            encodings = vectors.list_encodings(session, models.get(session, NAME))
        assert {encoding.space.base_repo for encoding in encodings} == {base}
    _, [revision] = history.list_revisions(database, NAME, before=None, limit=10)
    assert {measurement.space.base_repo for measurement in revision.measurements} == {OTHER}


@pytest.mark.parametrize(("first", "again"), [(OTHER, OTHER), (OTHER, None), ("pico/mirror", OTHER)])
def test_same_base_is_not_measured_again(
    database: Database, pipeline: Pipeline, folder: Path, first: str, again: str | None
):
    ingest(database, pipeline, folder, first)
    before = current_revision(database).base_evidence
    resubmitted = ingest(database, pipeline, folder, again)
    assert (resubmitted.state, resubmitted.progress) == (JobState.DONE, 1)
    assert current_revision(database).base_evidence == before


def test_mirror_is_not_measured_again(database: Database, pipeline: Pipeline, folder: Path):
    ingest(database, pipeline, folder, "pico/mirror")
    with database.transaction() as session:
        seq = models.get(session, NAME).seq
    ingest(database, pipeline, folder, "pico/mirror")
    with database.transaction() as session:
        assert models.get(session, NAME).seq == seq


def test_later_commit_that_names_no_usable_base_keeps_the_submitted_one(
    database: Database, pipeline: Pipeline, folder: Path
):
    ingest(database, pipeline, folder, OTHER)
    first = current_revision(database)
    pico.make_adapter(folder, seed=3, base=ON_A_DISK)

    assert ingest(database, pipeline, folder).state == JobState.DONE

    later = current_revision(database)
    assert later.sha != first.sha
    assert (later.base_repo, later.submitted_base) == (OTHER, OTHER)


def test_later_commit_that_names_its_base_is_measured_on_that(database: Database, pipeline: Pipeline, folder: Path):
    ingest(database, pipeline, folder, OTHER)
    declare(folder, pico.BASE_ID)
    ingest(database, pipeline, folder)
    later = current_revision(database)
    assert (later.base_repo, later.submitted_base) == (pico.BASE_ID, None)


def test_commit_measured_under_a_new_contract_stays_on_its_submitted_base(
    database: Database, pipeline: Pipeline, bases: Path, folder: Path, tmp_path: Path
):
    declare(folder, pico.BASE_ID)
    ingest(database, pipeline, folder, OTHER)
    measurement = MeasurementSettings(load_probes(), ("delta_activations", "delta_logits"))

    ingest(database, make_pipeline(database, bases, tmp_path, measurement=measurement), folder)

    assert current_revision(database).base_repo == OTHER
