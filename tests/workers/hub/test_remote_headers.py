"""Screening of repos before their weights are downloaded, and its cost in bytes, counted by the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.tables import JobState
from tests.support import pico
from tests.support.hub_client import make_hub
from tests.support.hub_server import HubServer, ScriptedHub
from tests.support.pipeline import make_pipeline
from workers.hub.client import DEFAULT_OPTIONS
from workers.hub.remote_headers import remote_shapes
from workers.ingest.claimer import BatchPolicy

LARGE_WEIGHTS_BYTES = 4 * 2**20  # of weights that must not be downloaded
MAX_SCREENING_BYTES = 64 * 2**10
NAME = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": pico.BASE_ID}
WIDE_COLUMNS = LARGE_WEIGHTS_BYTES // 4 // 4  # no base has this width

Ingest = Callable[[str], tuple[JobState, str | None]]


def adapter(
    config: dict[str, Any] | None = None, rank: int = 4, width: int = WIDE_COLUMNS, **more: Any
) -> dict[str, bytes]:
    tensors = {f"{NAME}.lora_A.weight": (rank, width), f"{NAME}.lora_B.weight": (32, rank)}
    weights = save({name: np.zeros(shape, np.float32) for name, shape in (tensors | more).items()})
    content = json.dumps(CONFIG | (config or {})).encode()
    return {"adapter_config.json": content, "adapter_model.safetensors": weights}


def with_header(files: dict[str, bytes], change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    weights = files["adapter_model.safetensors"]
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    change(header)
    head = json.dumps(header).encode()
    return {**files, "adapter_model.safetensors": len(head).to_bytes(8, "little") + head + weights[8 + length :]}


def good_files(folder: Path) -> dict[str, bytes]:
    adapter_folder = pico.make_adapter(folder)
    return {path.name: path.read_bytes() for path in adapter_folder.iterdir()}


@pytest.fixture
def ingest(database: Database, servers: EmbeddedServers, pico_base: Path, tmp_path: Path, request) -> Ingest:
    """Submit a repo, run its job, and return its state and error code."""
    url = request.getfixturevalue(getattr(request, "param", "scripted_hub")).url
    pipeline = make_pipeline(database, pico_base, tmp_path, endpoint=url, timeout=5, batching=BatchPolicy())

    def run(repo_id: str) -> tuple[JobState, str | None]:
        job = submit_repo(database, RepoRef(repo_id))
        pipeline.ingest(job.id)
        with database.transaction() as session:
            ended = jobs.get(session, job.id)
            return ended.state, ended.error_code

    return run


def huge_offsets(header: dict[str, Any]) -> None:
    header[f"{NAME}.lora_A.weight"]["data_offsets"][1] *= 1000


def other_dtype(header: dict[str, Any]) -> None:
    header[f"{NAME}.lora_A.weight"]["dtype"] = "F64"


BAD_REPOS = {
    "wrong_base": (adapter(), "shape_mismatch"),
    "unknown_base": (adapter({"base_model_name_or_path": "no/such"}), "base_unresolved"),
    "wrong_kind": (adapter({"peft_type": "NO_SUCH"}), "unsupported_adapter"),
    "wrong_rank": (adapter({"r": 64}), "invalid_adapter_config"),
    "lie_about_offsets": (with_header(adapter(), huge_offsets), "corrupt_weights"),
    "lie_about_the_dtype": (with_header(adapter(), other_dtype), "corrupt_weights"),
    "bytes_after_the_last_tensor": (
        adapter() | {"adapter_model.safetensors": adapter()["adapter_model.safetensors"] + b"more"},
        "corrupt_weights",
    ),
    "no_safetensors": (
        adapter() | {"adapter_model.safetensors": b"\xff" * LARGE_WEIGHTS_BYTES},
        "corrupt_weights",
    ),
    "needs_code": (adapter({"auto_map": {"AutoModel": "x.Y"}}), "remote_code"),
}


@pytest.mark.parametrize("name", BAD_REPOS)
def test_rejected_repo_costs_kilobytes(scripted_hub: ScriptedHub, ingest: Ingest, name: str):
    files, code = BAD_REPOS[name]
    scripted_hub.publish("o/n", files)
    assert ingest("o/n") == (JobState.FAILED, code)
    assert sum(scripted_hub.bytes_sent.values()) < MAX_SCREENING_BYTES
    assert len(files["adapter_model.safetensors"]) >= LARGE_WEIGHTS_BYTES


def test_connection_closes_after_the_header_on_a_server_without_ranges(scripted_hub: ScriptedHub, ingest: Ingest):
    large = 64 * 2**20
    scripted_hub.publish("o/n", adapter(width=large // 16), supports_ranges=False)
    assert ingest("o/n") == (JobState.FAILED, "shape_mismatch")
    # bytes in the buffers of both sockets count as sent
    assert sum(scripted_hub.bytes_sent.values()) < large / 4


def test_good_adapter_is_downloaded_once_and_embedded(scripted_hub: ScriptedHub, ingest: Ingest, tmp_path: Path):
    files = good_files(tmp_path / "good")
    scripted_hub.publish("o/n", files)
    assert ingest("o/n") == (JobState.DONE, None)
    for name, body in files.items():
        assert sum(count for path, count in scripted_hub.bytes_sent.items() if path.endswith(name)) == len(body)


def test_shards_of_an_adapter_are_downloaded_and_embedded(scripted_hub: ScriptedHub, ingest: Ingest, tmp_path: Path):
    files = good_files(tmp_path / "good")
    tensors = load(files.pop("adapter_model.safetensors"))
    for number in (1, 2):
        half = {name: tensor for place, (name, tensor) in enumerate(tensors.items()) if place % 2 == number - 1}
        files[f"adapter_model-{number:05}-of-00002.safetensors"] = save(half)
    scripted_hub.publish("o/n", files)
    assert ingest("o/n") == (JobState.DONE, None)


def test_adapter_of_mlx_is_embedded_without_its_checkpoints(scripted_hub: ScriptedHub, ingest: Ingest):
    name = "model.layers.0.self_attn.q_proj"
    weights = save({f"{name}.lora_a": np.ones((32, 4), np.float32), f"{name}.lora_b": np.ones((4, 32), np.float32)})
    config = {"num_layers": 2, "lora_parameters": {"rank": 4, "scale": 20.0}, "model": pico.BASE_ID}
    files = {"adapter_config.json": json.dumps(config).encode(), "adapters.safetensors": weights}
    scripted_hub.publish("o/n", {**files, "0000100_adapters.safetensors": b"checkpoint"})
    assert ingest("o/n") == (JobState.DONE, None)
    assert not scripted_hub.download_requests("0000100_adapters.safetensors")


@pytest.mark.parametrize("ingest", ["hub_server"], indirect=True)
def test_mirror_without_sizes_and_ranges_works(hub_server: HubServer, ingest: Ingest, tmp_path: Path):
    hub_server.commit("screened/good", good_files(tmp_path / "good"))
    assert ingest("screened/good") == (JobState.DONE, None)


def test_header_longer_than_the_first_request_is_read(scripted_hub: ScriptedHub, ingest: Ingest):
    more = {f"other.{number:05}.weight": (1,) for number in range(2000)}
    files = adapter(width=LARGE_WEIGHTS_BYTES // 16, **more)
    length = int.from_bytes(files["adapter_model.safetensors"][:8], "little")
    scripted_hub.publish("o/n", files)
    assert ingest("o/n") == (JobState.FAILED, "shape_mismatch")
    assert length > 100_000
    assert sum(scripted_hub.bytes_sent.values()) < length + MAX_SCREENING_BYTES


def full_model(width: int, layers: int = 2) -> dict[str, bytes]:
    """A sharded model, one layer a shard."""
    files: dict[str, bytes] = {"config.json": json.dumps({"model_type": "llama"}).encode()}
    index = {}
    for layer in range(layers):
        shard, name = (
            f"model-{layer + 1:05}-of-{layers:05}.safetensors",
            f"model.layers.{layer}.self_attn.q_proj.weight",
        )
        files[shard] = save({name: np.zeros((32, width if layer else 32), np.float32)})
        index[name] = shard
    files["model.safetensors.index.json"] = json.dumps({"weight_map": index}).encode()
    return files


def test_header_of_every_shard_is_checked(scripted_hub: ScriptedHub, ingest: Ingest):
    files = full_model(LARGE_WEIGHTS_BYTES // 128)
    scripted_hub.publish("o/n", files | {"README.md": f"---\nbase_model: {pico.BASE_ID}\n---\n".encode()})
    assert ingest("o/n") == (JobState.FAILED, "shape_mismatch")
    assert sum(scripted_hub.bytes_sent.values()) < MAX_SCREENING_BYTES


def test_shard_that_differs_from_the_index_costs_kilobytes(scripted_hub: ScriptedHub, ingest: Ingest):
    files = full_model(LARGE_WEIGHTS_BYTES // 128)
    first, second = sorted(name for name in files if name.startswith("model-"))
    scripted_hub.publish("o/n", files | {first: files[second]})
    assert ingest("o/n") == (JobState.FAILED, "corrupt_weights")
    assert sum(scripted_hub.bytes_sent.values()) < MAX_SCREENING_BYTES


def test_base_that_does_not_fit_is_not_downloaded(scripted_hub: ScriptedHub, ingest: Ingest):
    scripted_hub.publish("o/base", full_model(LARGE_WEIGHTS_BYTES // 128))
    scripted_hub.publish("o/n", adapter({"base_model_name_or_path": "o/base"}, width=16))
    assert ingest("o/n") == (JobState.FAILED, "shape_mismatch")
    assert sum(scripted_hub.bytes_sent.values()) < 2 * MAX_SCREENING_BYTES


@pytest.mark.parametrize("whole", [True, False])
def test_shapes_of_a_base_are_those_of_the_files_that_transformers_loads(
    scripted_hub: ScriptedHub, tmp_path: Path, whole: bool
):
    stale = save({"model.layers.7.mlp.up_proj.weight": np.zeros((8, 8), np.float32)})
    files = full_model(32) | {"model-00009-of-00009.safetensors": stale, "consolidated.safetensors": stale}
    if whole:
        files["model.safetensors"] = save({"model.norm.weight": np.zeros(32, np.float32)})
    scripted_hub.publish("o/base", files)
    hub = make_hub(scripted_hub.url, tmp_path)
    names = {"model.norm.weight"} if whole else {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}
    assert remote_shapes(hub, hub.resolve("o/base"), DEFAULT_OPTIONS).keys() == names
    assert not scripted_hub.download_requests("model-00009-of-00009.safetensors")
