from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from sqlalchemy import update
from transformers import AutoTokenizer

from catalog.archives.limits import ArchiveLimits
from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.jobs import control as job_control
from catalog.jobs.quotas import Quota
from catalog.jobs.submissions import submit_folder
from catalog.merges import repository as merges
from catalog.merges import service as merge_service
from catalog.merges.methods import METHODS, MergeSpec
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.spaces.probes import load_probes
from catalog.tables import Job, JobState, Merge, ModelState, Revision, Source
from catalog.vectors.numeric import cosine
from catalog.vectors.repository import vectors
from tests.support import catalog as entries
from tests.support import pico
from tests.support.cancelling import cancel_at_first_report
from tests.support.pico_adapters import KINDS
from tests.support.pico_models import load, load_with, make_adapter
from tests.support.pipeline import assemble, make_pipeline
from workers.bases.residents import MeasurementSettings
from workers.bootstrap import job_runners
from workers.ingest.job_runner import JobRunner
from workers.ingest.pipeline import Pipeline
from workers.merges.runner import FETCHED, MergeRunner
from workers.process.zip_archive import packed

CONTRACT = MeasurementSettings(load_probes(), ("delta_activations", "delta_layers"))
ANONYMOUS = Quota("anonymous", 100)
WEIGHTS = {"local/m0": 1.0, "local/m1": 0.5}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


EACH_METHOD = [
    name if name in ("cat", "ties_svd") else pytest.param(name, marks=pytest.mark.exhaustive) for name in METHODS
]


@pytest.fixture
def pipeline(database: Database, pico_base: Path, tmp_path: Path) -> Pipeline:
    """A pipeline that has indexed two models."""
    pipeline = make_pipeline(database, pico_base, tmp_path, measurement=CONTRACT)
    for number in range(2):
        index(database, pipeline, pico.make_adapter(tmp_path / f"m{number}", seed=number))
    return pipeline


def index(database: Database, pipeline: Pipeline, folder: Path) -> np.ndarray:
    """Ingest a folder and return its stored vector."""
    pipeline.ingest(submit_folder(database, folder).id)
    return vector_of(database, f"local/{folder.name}")


def vector_of(database: Database, repo_id: str) -> np.ndarray:
    with database.transaction() as session:
        return vectors.get_encoding(session, repo_id, features=("delta_activations",)).vector


def create_merge(database: Database, spec: MergeSpec, name: str | None = None) -> tuple[int, Job]:
    merge, job = merge_service.create(database, spec, name, ANONYMOUS, PUBLIC)
    return merge.id, job


def read_merge(database: Database, merge_id: int) -> tuple[Merge, Job, dict[str, np.ndarray]]:
    merge, job = merge_service.get(database, merge_id, ADMIN)
    with database.transaction() as session:
        measured = merges.get_vectors(session, merge_id, predicted=False)
    return merge, job, {space.feature: vector for space, vector in measured}


def unpack(database: Database, merge_id: int, folder: Path) -> Path:
    download = merge_service.get_adapter(database, merge_id, ADMIN)
    content = b"".join(download.pieces)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (download.size, download.sha256)
    zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
    return folder


def published_vector(base: Path, adapter: Path) -> np.ndarray:
    """Delta Activations by plain PEFT and the published procedure: last hidden states of the prompts' last tokens."""
    tokenizer = AutoTokenizer.from_pretrained(base)

    def last(model: torch.nn.Module) -> torch.Tensor:
        rows = []
        for prompt in load_probes().prompts:
            tokens = tokenizer(prompt, return_tensors="pt", truncation=True, max_length=256)
            with torch.no_grad():
                rows.append(model.eval()(**tokens, output_hidden_states=True).hidden_states[-1][0, -1])
        return torch.stack(rows)

    return (last(load_with(base, adapter)) - last(load(base))).mean(dim=0).numpy()


def relative_error(vector: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(vector - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("method", EACH_METHOD)
def test_merged_adapter_loads_in_peft_and_has_the_stored_vector(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path, method: str
):
    merge_id, job = create_merge(database, MergeSpec(WEIGHTS, method, density=0.7))
    assert pipeline.ingest(job.id) == 1
    _, job, measured = read_merge(database, merge_id)
    assert (job.state, job.error_code, job.progress) == (JobState.DONE, None, 1)
    folder = unpack(database, merge_id, tmp_path / "merged")
    assert relative_error(published_vector(pico_base / pico.BASE_ID, folder), measured["delta_activations"]) < 1e-4
    assert relative_error(index(database, pipeline, folder), measured["delta_activations"]) < 1e-5


def test_measured_vector_is_compared_with_the_prediction(database: Database, pipeline: Pipeline):
    merge_id, job = create_merge(database, MergeSpec(WEIGHTS))
    pipeline.ingest(job.id)
    merge, _, measured = read_merge(database, merge_id)
    predicted = vector_of(database, "local/m0") + 0.5 * vector_of(database, "local/m1")
    comparison = merge.metrics["spaces"]["delta_activations"]
    assert comparison["predicted_norm"] == pytest.approx(np.linalg.norm(predicted), rel=1e-5)
    assert comparison["norm"] == pytest.approx(np.linalg.norm(measured["delta_activations"]), rel=1e-5)
    expected_cosine = predicted @ measured["delta_activations"] / comparison["norm"] / comparison["predicted_norm"]
    assert comparison["cosine"] == pytest.approx(expected_cosine, abs=1e-5)
    assert set(merge.metrics["spaces"]) == {"delta_activations", "delta_layers"}
    assert (merge.metrics["rank"], merge.metrics["modules"], merge.plan["rank"]) == (8, 4, 8)
    assert all(0 < value <= 1 for value in merge.metrics["cosines_to_parts"])


def test_private_model_with_the_name_of_a_part_is_ignored(database: Database, pipeline: Pipeline):
    merge_id, job = create_merge(database, MergeSpec(WEIGHTS))
    space_key = read_merge(database, merge_id)[0].plan["space"]
    with database.transaction() as session:
        public = vectors.get_encoding(session, "local/m0", space_key=space_key)
    measurement = spaces.to_space(public.space)
    entries.put_private(database, "local/m0", -public.vector, "owner", space=measurement)
    pipeline.ingest(job.id)
    merge, job, measured = read_merge(database, merge_id)
    assert (job.state, job.error_message) == (JobState.DONE, None)
    assert merge.metrics["cosines_to_parts"][0] == pytest.approx(
        cosine(measured[measurement.feature], public.vector), abs=1e-5
    )


def test_card_lists_the_parts(database: Database, pipeline: Pipeline, tmp_path: Path):
    merge_id, job = create_merge(database, MergeSpec(WEIGHTS, "ties"), name="both")
    pipeline.ingest(job.id)
    folder = unpack(database, merge_id, tmp_path / "merged")
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {"base_model": pico.BASE_ID, "library_name": "peft", "tags": ["lora", "merge"]}
    for part in read_merge(database, merge_id)[0].parts:
        assert f"| {part['repo_id']} | `{part['sha']}` | {part['weight']:g} | unknown |" in card
    assert "method `ties`, density 0.5." in card
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], sorted(config["target_modules"])) == (pico.BASE_ID, ["q_proj", "v_proj"])


@pytest.mark.usefixtures("pipeline")
def test_base_is_unchanged(database: Database, pico_base: Path, tmp_path: Path):
    worker = assemble(database, pico_base, tmp_path, measurement=CONTRACT)
    base = worker.resolver.resolve({"declared": pico.BASE_ID})
    before = {name: tensor.clone() for name, tensor in worker.bases.get(base).encoder.base.model.state_dict().items()}
    _, job = create_merge(database, MergeSpec(WEIGHTS, "ties_svd"))
    worker.pipeline.ingest(job.id)
    after = worker.bases.get(base).encoder.base.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()


@pytest.mark.usefixtures("pipeline")
def test_merge_whose_adapter_would_exceed_the_quota_is_refused_before_it_is_computed(
    database: Database, pico_base: Path, tmp_path: Path
):
    runners = partial(job_runners, archive_limits=ArchiveLimits(per_key=1_000))  # bytes, less than a pico adapter has
    worker = make_pipeline(database, pico_base, tmp_path, measurement=CONTRACT, runners=runners)
    spec = MergeSpec(WEIGHTS)
    mine, mine_job = merge_service.create(database, spec, None, ANONYMOUS, Viewer("me"))
    public, public_job = create_merge(database, spec)
    worker.ingest(mine_job.id)
    worker.ingest(public_job.id)
    job = read_merge(database, mine.id)[1]
    assert (job.state, job.error_code, job.progress) == (JobState.FAILED, "archive_quota_exceeded", FETCHED)
    assert "its limit is 1,000" in (job.error_message or "")
    assert read_merge(database, public)[1].state == JobState.DONE  # of no key


def test_merge_is_not_listed_as_a_model(database: Database, pipeline: Pipeline):
    _, job = create_merge(database, MergeSpec(WEIGHTS))
    pipeline.ingest(job.id)
    with database.transaction() as session:
        for viewer in (PUBLIC, ADMIN):
            assert [model.repo_id for model in models.list_page(session, viewer=viewer)] == ["local/m0", "local/m1"]
        assert models.count_by_state(session)[ModelState.INDEXED] == 2


def error_of(database: Database, pipeline: Pipeline, spec: MergeSpec) -> tuple[str | None, str | None]:
    """The error that a merge's job ends with."""
    merge_id, job = create_merge(database, spec)
    pipeline.ingest(job.id)
    _, job, measured = read_merge(database, merge_id)
    assert (job.state, measured) == (JobState.FAILED, {})
    return job.error_code, job.error_message


def index_without_facts(database: Database, pipeline: Pipeline, pico_base: Path, folder: Path, kind: str) -> str:
    """Index an adapter of a kind, then remove its facts, which older revisions do not have. Returns its repo id."""
    adapter_kind, base = KINDS[kind], pico_base / pico.BASE_ID
    options = {"save_embedding_layers": False} if kind == "lora_embedding" else {}  # these are the base's
    make_adapter(base, folder, adapter_kind.config("llama"), prepare=adapter_kind.prepare, **options)
    config = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": pico.BASE_ID}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    index(database, pipeline, folder)
    with database.transaction() as session:
        session.execute(update(Revision).values(facts=None))
    return f"local/{folder.name}"


@pytest.mark.parametrize("kind", ["modules_to_save", "larger_vocabulary", "trained_tokens", "lora_bias"])
def test_adapter_with_other_weights_than_lora_pairs_is_refused(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path, kind: str
):
    name = index_without_facts(database, pipeline, pico_base, tmp_path / "other", kind)
    code, message = error_of(database, pipeline, MergeSpec({"local/m0": 1.0, name: 1.0}))
    assert code == "merge_incompatible"
    assert message.startswith("local/other contains weights other than LoRA pairs")


def test_different_ranks_are_refused_if_the_method_combines_factors(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path
):
    name = index_without_facts(database, pipeline, pico_base, tmp_path / "other", "lora_patterns")
    code, message = error_of(database, pipeline, MergeSpec({"local/m0": 1.0, name: 1.0}, "linear"))
    assert (code, "local/other has 2/4" in message) == ("merge_incompatible", True)


def test_rank_that_the_plan_did_not_know_is_refused_by_the_job(database: Database, pipeline: Pipeline, tmp_path: Path):
    index(database, pipeline, pico.make_adapter(tmp_path / "m2", rank=512))
    with database.transaction() as session:
        session.execute(update(Revision).values(facts=None))
    code, message = error_of(database, pipeline, MergeSpec({"local/m0": 1.0, "local/m2": 1.0}))
    assert (code, "have rank 516" in message) == ("merge_incompatible", True)


def merged_with_m0(database: Database, pipeline: Pipeline, pico_base: Path, name: str, folder: Path) -> Path:
    """Merge a model with `local/m0`, compare the result with plain PEFT, and return its folder."""
    merge_id, job = create_merge(database, MergeSpec({"local/m0": 1.0, name: 0.5}))
    pipeline.ingest(job.id)
    _, job, measured = read_merge(database, merge_id)
    assert (job.state, job.error_message) == (JobState.DONE, None)
    unpack(database, merge_id, folder)
    assert relative_error(published_vector(pico_base / pico.BASE_ID, folder), measured["delta_activations"]) < 1e-4
    return folder


@pytest.mark.parametrize("kind", ["lora_patterns", "lora_embedding", "rslora", "adalora"])
def test_every_kind_of_lora_pairs_is_merged(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path, kind: str
):
    name = index_without_facts(database, pipeline, pico_base, tmp_path / "other", kind)
    folder = merged_with_m0(database, pipeline, pico_base, name, tmp_path / "merged")
    assert weight_error(pico_base, {tmp_path / "m0": 1.0, tmp_path / "other": 0.5}, folder) < 1e-4


@pytest.mark.parametrize("first", ["m0", "m3"])
def test_parts_trained_on_the_headless_base_match_the_modules_of_the_causal_lm(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path, first: str
):
    for name, seed in (("m2", 1), ("m3", 0)):
        rename(pico.make_adapter(tmp_path / name, seed=seed), "base_model.model.model.", "base_model.model.")
        index(database, pipeline, tmp_path / name)
    merge_id, job = create_merge(database, MergeSpec({f"local/{first}": 1.0, "local/m2": 0.5}))
    expected_id, expected_job = create_merge(database, MergeSpec(WEIGHTS))
    pipeline.ingest(job.id)
    pipeline.ingest(expected_job.id)
    (_, job, measured), (_, _, expected) = read_merge(database, merge_id), read_merge(database, expected_id)
    assert (job.state, job.error_message) == (JobState.DONE, None)
    folder = unpack(database, merge_id, tmp_path / "merged")
    assert relative_error(published_vector(pico_base / pico.BASE_ID, folder), measured["delta_activations"]) < 1e-4
    assert relative_error(measured["delta_activations"], expected["delta_activations"]) < 1e-5


def rename(folder: Path, prefix: str, other: str) -> None:
    """Replace a prefix in the names of an adapter's tensors."""
    file = folder / "adapter_model.safetensors"
    save_file({other + name.removeprefix(prefix): tensor for name, tensor in load_file(file).items()}, file)


def test_modules_that_adalora_pruned_to_rank_0_are_left_out(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path
):
    name = index_without_facts(database, pipeline, pico_base, tmp_path / "other", "adalora")
    file = tmp_path / "other" / "adapter_model.safetensors"
    pruned = {
        key: tensor.narrow(1 if ".lora_B" in key else 0, 0, 0).contiguous() if ".layers.0." in key else tensor
        for key, tensor in load_file(file).items()
    }
    save_file(pruned, file)
    index(database, pipeline, tmp_path / "other")
    merged_with_m0(database, pipeline, pico_base, name, tmp_path / "merged")


def weight_error(pico_base: Path, parts: dict[Path, float], merged: Path) -> float:
    """The error of the merged weights, relative to the weighted sum of the changes of the parts."""
    base = load(pico_base / pico.BASE_ID).state_dict()

    def change(adapter: Path) -> dict[str, torch.Tensor]:
        weights = load_with(pico_base / pico.BASE_ID, adapter).merge_and_unload().state_dict()
        return {name: weights[name] - base[name] for name in base}

    changes = [(weight, change(part)) for part, weight in parts.items()]
    merged_change = change(merged)
    total = {name: sum(weight * part[name] for weight, part in changes) for name in base if name != "lm_head.weight"}
    error = sum(float((merged_change[name] - total[name]).norm()) ** 2 for name in total)
    return (error / sum(float(tensor.norm()) ** 2 for tensor in total.values())) ** 0.5


def test_ranks_are_stored_with_a_revision(database: Database, pipeline: Pipeline):
    with database.transaction() as session:
        expected = {"path": "lora", "ranks": [4], "rslora": False, "notes": []}
        assert models.get(session, "local/m0").revision.facts == expected


@pytest.mark.parametrize("change", ["file", "revision"])
def test_part_at_another_revision_fails_with_revision_not_found(
    database: Database, pipeline: Pipeline, tmp_path: Path, change: str
):
    merge_id, job = create_merge(database, MergeSpec(WEIGHTS))
    pico.make_adapter(tmp_path / "m0", seed=9)
    if change == "revision":
        submit_folder(database, tmp_path / "m0")
        job_control.cancel(database, job.id)
        index(database, pipeline, tmp_path / "m0")
        job_control.retry(database, job.id)
    pipeline.ingest(job.id)
    _, job, _ = read_merge(database, merge_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "revision_not_found")


def test_deleted_folder_of_a_part_fails_with_folder_unreadable(database: Database, pipeline: Pipeline, tmp_path: Path):
    shutil.rmtree(tmp_path / "m1")
    assert error_of(database, pipeline, MergeSpec(WEIGHTS))[0] == "folder_unreadable"


def pipeline_with(database: Database, pico_base: Path, tmp_path: Path, **settings: Any) -> Pipeline:
    """A pipeline whose `MergeRunner` is made with these settings."""

    def runners(*parts: Any) -> dict[Source, JobRunner]:
        return {Source.MERGE: MergeRunner(*parts, **settings)}

    return make_pipeline(database, pico_base, tmp_path, measurement=CONTRACT, runners=runners)


@pytest.mark.usefixtures("pipeline")
def test_cancelled_merge_stores_nothing(database: Database, pico_base: Path, tmp_path: Path):
    merge_id, job = create_merge(database, MergeSpec(WEIGHTS))
    pipeline_with(database, pico_base, tmp_path, reporter=cancel_at_first_report).ingest(job.id)
    _, job, measured = read_merge(database, merge_id)
    assert (job.state, measured) == (JobState.CANCELLED, {})


@pytest.mark.usefixtures("pipeline")
def test_result_is_packed_once_and_stored_whole_after_a_failed_attempt(
    database: Database, pico_base: Path, tmp_path: Path
):
    merge_id, job = create_merge(database, MergeSpec(WEIGHTS))
    events: list[str] = []

    class CutOffOnce:
        """A file at the end of which Postgres goes away, the first time."""

        def __init__(self, file: BinaryIO) -> None:
            self._file = file
            self.seek = file.seek

        def read(self, size: int) -> bytes:
            data = self._file.read(size)
            if not data:
                events.append("read")
                if events.count("read") == 1:
                    raise DatabaseUnavailable("Postgres went away.")
            return data

    @contextmanager
    def pack(folder: Path) -> Iterator[CutOffOnce]:
        events.append("packed")
        with packed(folder) as file:
            yield CutOffOnce(file)

    pipeline_with(database, pico_base, tmp_path, pack=pack).ingest(job.id)
    assert events == ["packed", "read", "read"]
    assert (unpack(database, merge_id, tmp_path / "merged") / "adapter_model.safetensors").stat().st_size > 0


@pytest.mark.usefixtures("pipeline")
def test_merge_deleted_while_it_runs_stores_nothing(database: Database, pico_base: Path, tmp_path: Path):
    merge_id, job = create_merge(database, MergeSpec(WEIGHTS))
    deleted: list[Any] = []

    def delete_once(progress: float) -> None:
        if not deleted:
            deleted.append(merge_service.delete(database, merge_id, ADMIN))

    pipeline_with(database, pico_base, tmp_path, reporter=lambda *_: delete_once).ingest(job.id)
    assert merge_service.list_page(database, ADMIN, before=None, limit=10) == []


def count_distinct(rows: Sequence[np.ndarray]) -> int:
    return len({row.tobytes() for row in rows})


def test_seed_decides_which_values_are_dropped(database: Database, pipeline: Pipeline):
    rows = []
    for seed in (1, 1, 2):
        merge_id, job = create_merge(database, MergeSpec(WEIGHTS, "dare_linear", seed=seed))
        pipeline.ingest(job.id)
        rows.append(read_merge(database, merge_id)[2]["delta_activations"])
    assert count_distinct(rows[:2]) == 1
    assert count_distinct(rows) == 2
