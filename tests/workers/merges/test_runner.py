from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from sqlalchemy import update
from transformers import AutoTokenizer

from catalog.auth.viewer import EVERYTHING, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.jobs import control as job_control
from catalog.jobs.quotas import Quota
from catalog.jobs.submissions import submit_folder
from catalog.merges import repository as merges
from catalog.merges import service as merge_service
from catalog.merges.methods import METHODS, Blend
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
from workers.bases.residents import Contract
from workers.ingest.exclusive import JobRunner
from workers.ingest.pipeline import Pipeline
from workers.merges.runner import MergeRunner
from workers.process.zip_archive import packed

CONTRACT = Contract(load_probes(), ("delta_activations", "delta_layers"))
NOBODY = Quota("anonymous", 100)
WEIGHTS = {"local/m0": 1.0, "local/m1": 0.5}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


EACH_METHOD = [
    name if name in ("cat", "ties_svd") else pytest.param(name, marks=pytest.mark.exhaustive) for name in METHODS
]


@pytest.fixture
def pipeline(database: Database, pico_base: Path, tmp_path: Path) -> Pipeline:
    """With two models indexed."""
    made = make_pipeline(database, pico_base, tmp_path, contract=CONTRACT)
    for number in range(2):
        index(database, made, pico.make_adapter(tmp_path / f"m{number}", seed=number))
    return made


def index(database: Database, pipeline: Pipeline, folder: Path) -> np.ndarray:
    """Ingest a folder like any other; the vector that is stored of it."""
    pipeline.ingest(submit_folder(database, folder).id)
    return vector_of(database, f"local/{folder.name}")


def vector_of(database: Database, repo_id: str) -> np.ndarray:
    with database.transaction() as session:
        return vectors.newest(session, repo_id, features=("delta_activations",)).vector


def ask(database: Database, blend: Blend, name: str | None = None, viewer: Viewer = PUBLIC) -> tuple[int, Job]:
    merge, job = merge_service.ask(database, blend, name, NOBODY, viewer)
    return merge.id, job


def look(database: Database, merge_id: int) -> tuple[Merge, Job, dict[str, np.ndarray]]:
    merge, job = merge_service.get(database, merge_id, EVERYTHING)
    with database.transaction() as session:
        made = merges.vectors(session, merge_id, predicted=False)
    return merge, job, {space.feature: vector for space, vector in made}


def unpack(database: Database, merge_id: int, folder: Path) -> Path:
    download = merge_service.adapter(database, merge_id, EVERYTHING)
    content = b"".join(download.pieces)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (download.size, download.sha256)
    zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
    return folder


def published_vector(base: Path, adapter: Path) -> np.ndarray:
    """Delta Activations by PEFT and the published procedure: each prompt alone, the last token's last hidden state."""
    tokenizer = AutoTokenizer.from_pretrained(base)

    def last(model: torch.nn.Module) -> torch.Tensor:
        rows = []
        for prompt in load_probes().prompts:
            tokens = tokenizer(prompt, return_tensors="pt", truncation=True, max_length=256)
            with torch.no_grad():
                rows.append(model.eval()(**tokens, output_hidden_states=True).hidden_states[-1][0, -1])
        return torch.stack(rows)

    return (last(load_with(base, adapter)) - last(load(base))).mean(dim=0).numpy()


def error_of(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("method", EACH_METHOD)
def test_what_is_made_loads_in_peft_and_has_the_vector_that_is_stored(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path, method: str
):
    merge_id, job = ask(database, Blend(WEIGHTS, method, density=0.7))
    assert pipeline.ingest(job.id) == 1
    _, job, made = look(database, merge_id)
    assert (job.state, job.error_code, job.progress) == (JobState.DONE, None, 1)
    folder = unpack(database, merge_id, tmp_path / "made")
    assert error_of(published_vector(pico_base / pico.BASE_ID, folder), made["delta_activations"]) < 1e-4
    assert error_of(index(database, pipeline, folder), made["delta_activations"]) < 1e-5


def test_what_came_out_is_held_against_the_prediction(database: Database, pipeline: Pipeline):
    merge_id, job = ask(database, Blend(WEIGHTS))
    pipeline.ingest(job.id)
    merge, _, made = look(database, merge_id)
    predicted = vector_of(database, "local/m0") + 0.5 * vector_of(database, "local/m1")
    told = merge.figures["spaces"]["delta_activations"]
    assert told["predicted_norm"] == pytest.approx(np.linalg.norm(predicted), rel=1e-5)
    assert told["norm"] == pytest.approx(np.linalg.norm(made["delta_activations"]), rel=1e-5)
    cosine = predicted @ made["delta_activations"] / told["norm"] / told["predicted_norm"]
    assert told["cosine"] == pytest.approx(cosine, abs=1e-5)
    assert set(merge.figures["spaces"]) == {"delta_activations", "delta_layers"}
    assert (merge.figures["rank"], merge.figures["modules"], merge.plan["rank"]) == (8, 4, 8)
    assert all(0 < each <= 1 for each in merge.figures["closeness"])


def test_a_private_model_of_the_same_name_is_no_part(database: Database, pipeline: Pipeline):
    merge_id, job = ask(database, Blend(WEIGHTS))
    space_key = look(database, merge_id)[0].plan["space"]
    with database.transaction() as session:
        public = vectors.newest(session, "local/m0", space_key=space_key)
    contract = spaces.contract_of(public.space)
    entries.put_private(database, "local/m0", -public.vector, "somebody", space=contract)
    pipeline.ingest(job.id)
    merge, job, made = look(database, merge_id)
    assert (job.state, job.error_message) == (JobState.DONE, None)
    assert merge.figures["closeness"][0] == pytest.approx(cosine(made[contract.feature], public.vector), abs=1e-5)


def test_the_card_names_the_parts(database: Database, pipeline: Pipeline, tmp_path: Path):
    merge_id, job = ask(database, Blend(WEIGHTS, "ties"), name="both")
    pipeline.ingest(job.id)
    folder = unpack(database, merge_id, tmp_path / "made")
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {"base_model": pico.BASE_ID, "library_name": "peft", "tags": ["lora", "merge"]}
    for part in look(database, merge_id)[0].parts:
        assert f"| {part['repo_id']} | `{part['sha']}` | {part['weight']:g} | none known |" in card
    assert "method `ties`, density 0.5." in card
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], sorted(config["target_modules"])) == (pico.BASE_ID, ["q_proj", "v_proj"])


@pytest.mark.usefixtures("pipeline")
def test_no_base_is_changed(database: Database, pico_base: Path, tmp_path: Path):
    worker = assemble(database, pico_base, tmp_path, contract=CONTRACT)
    base = worker.resolver.resolve(declared=pico.BASE_ID, card_base=None)
    before = {name: each.clone() for name, each in worker.bases.get(base).encoder.base.model.state_dict().items()}
    _, job = ask(database, Blend(WEIGHTS, "ties_svd"))
    worker.pipeline.ingest(job.id)
    after = worker.bases.get(base).encoder.base.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()


def test_a_merge_is_no_model_of_the_catalog(database: Database, pipeline: Pipeline):
    _, job = ask(database, Blend(WEIGHTS))
    pipeline.ingest(job.id)
    with database.transaction() as session:
        for viewer in (PUBLIC, EVERYTHING):
            assert [model.repo_id for model in models.page(session, viewer=viewer)] == ["local/m0", "local/m1"]
        assert models.counts(session)[ModelState.INDEXED] == 2


def fail(database: Database, pipeline: Pipeline, blend: Blend) -> tuple[str | None, str | None]:
    """The error that a merge's job ends with."""
    merge_id, job = ask(database, blend)
    pipeline.ingest(job.id)
    _, job, made = look(database, merge_id)
    assert (job.state, made) == (JobState.FAILED, {})
    return job.error_code, job.error_message


def published(database: Database, pipeline: Pipeline, pico_base: Path, folder: Path, kind: str) -> str:
    """An adapter of a kind, indexed, but as before there were facts of it; its repo id."""
    made, base = KINDS[kind], pico_base / pico.BASE_ID
    more = {"save_embedding_layers": False} if kind == "lora_embedding" else {}  # which are the base's own
    make_adapter(base, folder, made.config("llama"), before=made.before, **more)
    config = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": pico.BASE_ID}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    index(database, pipeline, folder)
    with database.transaction() as session:
        session.execute(update(Revision).values(facts=None))
    return f"local/{folder.name}"


@pytest.mark.parametrize("kind", ["modules_to_save", "larger_vocabulary", "trained_tokens", "lora_bias"])
def test_what_is_more_than_pairs_is_refused(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path, kind: str
):
    name = published(database, pipeline, pico_base, tmp_path / "other", kind)
    code, message = fail(database, pipeline, Blend({"local/m0": 1.0, name: 1.0}))
    assert code == "merge_incompatible"
    assert message.startswith("local/other brings more than low-rank pairs")


def test_ranks_that_differ_are_refused_where_factors_are_added(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path
):
    name = published(database, pipeline, pico_base, tmp_path / "other", "lora_patterns")
    code, message = fail(database, pipeline, Blend({"local/m0": 1.0, name: 1.0}, "linear"))
    assert (code, "local/other has 2/4" in message) == ("merge_incompatible", True)


def test_a_rank_that_the_plan_did_not_know_is_refused_before_anything_is_combined(
    database: Database, pipeline: Pipeline, tmp_path: Path
):
    index(database, pipeline, pico.make_adapter(tmp_path / "m2", rank=512))
    with database.transaction() as session:
        session.execute(update(Revision).values(facts=None))
    code, message = fail(database, pipeline, Blend({"local/m0": 1.0, "local/m2": 1.0}))
    assert (code, "of rank 516" in message) == ("merge_incompatible", True)


def merged_with_m0(database: Database, pipeline: Pipeline, pico_base: Path, name: str, folder: Path) -> Path:
    """The folder of a merge, after it was held against plain PEFT."""
    merge_id, job = ask(database, Blend({"local/m0": 1.0, name: 0.5}))
    pipeline.ingest(job.id)
    _, job, made = look(database, merge_id)
    assert (job.state, job.error_message) == (JobState.DONE, None)
    unpack(database, merge_id, folder)
    assert error_of(published_vector(pico_base / pico.BASE_ID, folder), made["delta_activations"]) < 1e-4
    return folder


@pytest.mark.parametrize("kind", ["lora_patterns", "lora_embedding", "rslora", "adalora"])
def test_every_kind_of_plain_pairs_is_merged(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path, kind: str
):
    name = published(database, pipeline, pico_base, tmp_path / "other", kind)
    folder = merged_with_m0(database, pipeline, pico_base, name, tmp_path / "made")
    assert whole_difference(pico_base, {tmp_path / "m0": 1.0, tmp_path / "other": 0.5}, folder) < 1e-4


@pytest.mark.parametrize("first", ["m0", "m3"])
def test_parts_that_were_trained_on_the_headless_base_are_merged_by_the_same_names(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path, first: str
):
    for name, seed in (("m2", 1), ("m3", 0)):
        rename(pico.make_adapter(tmp_path / name, seed=seed), "base_model.model.model.", "base_model.model.")
        index(database, pipeline, tmp_path / name)
    merge_id, job = ask(database, Blend({f"local/{first}": 1.0, "local/m2": 0.5}))
    like_id, like_job = ask(database, Blend(WEIGHTS))
    for each in (job, like_job):
        pipeline.ingest(each.id)
    (_, job, made), (_, _, like) = look(database, merge_id), look(database, like_id)
    assert (job.state, job.error_message) == (JobState.DONE, None)
    folder = unpack(database, merge_id, tmp_path / "made")
    assert error_of(published_vector(pico_base / pico.BASE_ID, folder), made["delta_activations"]) < 1e-4
    assert error_of(made["delta_activations"], like["delta_activations"]) < 1e-5


def rename(folder: Path, prefix: str, other: str) -> None:
    """Tensors of an adapter that begin with a prefix, under another."""
    file = folder / "adapter_model.safetensors"
    save_file({other + name.removeprefix(prefix): tensor for name, tensor in load_file(file).items()}, file)


def test_modules_of_which_adalora_left_no_rank_are_left_out(
    database: Database, pipeline: Pipeline, pico_base: Path, tmp_path: Path
):
    name = published(database, pipeline, pico_base, tmp_path / "other", "adalora")
    file = tmp_path / "other" / "adapter_model.safetensors"
    pruned = {
        key: tensor.narrow(1 if ".lora_B" in key else 0, 0, 0).contiguous() if ".layers.0." in key else tensor
        for key, tensor in load_file(file).items()
    }
    save_file(pruned, file)
    index(database, pipeline, tmp_path / "other")
    merged_with_m0(database, pipeline, pico_base, name, tmp_path / "made")


def whole_difference(pico_base: Path, parts: dict[Path, float], merged: Path) -> float:
    """How far the merged weights are from the base's plus what each part by itself changes, relative to the change."""
    base = load(pico_base / pico.BASE_ID).state_dict()

    def change(adapter: Path) -> dict[str, torch.Tensor]:
        whole = load_with(pico_base / pico.BASE_ID, adapter).merge_and_unload().state_dict()
        return {name: whole[name] - base[name] for name in base}

    wanted = [(weight, change(part)) for part, weight in parts.items()]
    found = change(merged)
    total = {name: sum(weight * each[name] for weight, each in wanted) for name in base if name != "lm_head.weight"}
    off = sum(float((found[name] - total[name]).norm()) ** 2 for name in total)
    return (off / sum(float(each.norm()) ** 2 for each in total.values())) ** 0.5


def test_facts_of_ranks_are_stored_with_a_revision(database: Database, pipeline: Pipeline):
    with database.transaction() as session:
        assert models.get(session, "local/m0").revision.facts == {"path": "lora", "ranks": [4], "rslora": False}


@pytest.mark.parametrize("change", ["file", "revision"])
def test_a_part_that_has_moved_on_is_told(database: Database, pipeline: Pipeline, tmp_path: Path, change: str):
    merge_id, job = ask(database, Blend(WEIGHTS))
    pico.make_adapter(tmp_path / "m0", seed=9)
    if change == "revision":
        submit_folder(database, tmp_path / "m0")
        job_control.cancel(database, job.id)
        index(database, pipeline, tmp_path / "m0")
        job_control.retry(database, job.id)
    pipeline.ingest(job.id)
    _, job, _ = look(database, merge_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "revision_not_found")


def test_a_part_that_is_gone_is_told(database: Database, pipeline: Pipeline, tmp_path: Path):
    shutil.rmtree(tmp_path / "m1")
    assert fail(database, pipeline, Blend(WEIGHTS))[0] == "folder_unreadable"


def merging(database: Database, pico_base: Path, tmp_path: Path, **settings: Any) -> Pipeline:
    """Another worker, whose runner of merges is made with such settings."""

    def runners(*parts: Any) -> dict[Source, JobRunner]:
        return {Source.MERGE: MergeRunner(*parts, **settings)}

    return make_pipeline(database, pico_base, tmp_path, contract=CONTRACT, runners=runners)


@pytest.mark.usefixtures("pipeline")
def test_a_cancelled_merge_stores_nothing(database: Database, pico_base: Path, tmp_path: Path):
    merge_id, job = ask(database, Blend(WEIGHTS))
    merging(database, pico_base, tmp_path, reporter=cancel_at_first_report).ingest(job.id)
    _, job, made = look(database, merge_id)
    assert (job.state, made) == (JobState.CANCELLED, {})


@pytest.mark.usefixtures("pipeline")
def test_a_result_is_packed_once_and_stored_whole_though_the_first_try_is_cut_off(
    database: Database, pico_base: Path, tmp_path: Path
):
    merge_id, job = ask(database, Blend(WEIGHTS))
    seen: list[str] = []

    class CutOffOnce:
        """A file at whose end Postgres goes away, the first time."""

        def __init__(self, file: BinaryIO) -> None:
            self._file = file
            self.seek = file.seek

        def read(self, size: int) -> bytes:
            data = self._file.read(size)
            if not data:
                seen.append("read")
                if seen.count("read") == 1:
                    raise DatabaseUnavailable("Postgres went away.")
            return data

    @contextmanager
    def pack(folder: Path) -> Iterator[CutOffOnce]:
        seen.append("packed")
        with packed(folder) as file:
            yield CutOffOnce(file)

    merging(database, pico_base, tmp_path, pack=pack).ingest(job.id)
    assert seen == ["packed", "read", "read"]
    assert (unpack(database, merge_id, tmp_path / "made") / "adapter_model.safetensors").stat().st_size > 0


@pytest.mark.usefixtures("pipeline")
def test_a_merge_that_is_deleted_while_it_is_made_stores_nothing(database: Database, pico_base: Path, tmp_path: Path):
    merge_id, job = ask(database, Blend(WEIGHTS))
    deleted: list[Any] = []

    def delete_once(progress: float) -> None:
        if not deleted:
            deleted.append(merge_service.delete(database, merge_id, EVERYTHING))

    merging(database, pico_base, tmp_path, reporter=lambda *_: delete_once).ingest(job.id)
    assert merge_service.page(database, EVERYTHING, before=None, limit=10) == []


def seen(vectors_of_it: Sequence[np.ndarray]) -> int:
    return len({each.tobytes() for each in vectors_of_it})


def test_the_seed_decides_what_chance_drops(database: Database, pipeline: Pipeline):
    found = []
    for seed in (1, 1, 2):
        merge_id, job = ask(database, Blend(WEIGHTS, "dare_linear", seed=seed))
        pipeline.ingest(job.id)
        found.append(look(database, merge_id)[2]["delta_activations"])
    assert seen(found[:2]) == 1
    assert seen(found) == 2
