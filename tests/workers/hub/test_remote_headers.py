"""What is looked at before weights are fetched, and what it costs, counted by the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.tables import JobState
from tests.support import pico
from tests.support.hub_server import HubServer, ScriptedHub
from tests.support.pipeline import make_pipeline
from workers.ingest.claimer import Pace

LARGE = 4 * 2**20  # bytes of the weights that are not to be fetched
KILOBYTES = 64 * 2**10
NAME = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": pico.BASE_ID}
WIDE = LARGE // 4 // 4  # columns that fit no base

Ingest = Callable[[str], tuple[JobState, str | None]]


def adapter(config: dict[str, Any] | None = None, rank: int = 4, width: int = WIDE, **more: Any) -> dict[str, bytes]:
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


def good(folder: Path) -> dict[str, bytes]:
    made = pico.make_adapter(folder)
    return {path.name: path.read_bytes() for path in made.iterdir()}


@pytest.fixture
def ingest(database: Database, servers: EmbeddedServers, pico_base: Path, tmp_path: Path, request) -> Ingest:
    """Submit a repo, run its job and tell how it ended."""
    url = request.getfixturevalue(getattr(request, "param", "scripted_hub")).url
    pipeline = make_pipeline(database, pico_base, tmp_path, endpoint=url, timeout=5, pace=Pace())

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


BAD = {
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
        adapter() | {"adapter_model.safetensors": b"\xff" * LARGE},
        "corrupt_weights",
    ),
    "needs_code": (adapter({"auto_map": {"AutoModel": "x.Y"}}), "remote_code"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_embedded_costs_kilobytes(scripted_hub: ScriptedHub, ingest: Ingest, name: str):
    files, code = BAD[name]
    scripted_hub.publishes("o/n", files)
    assert ingest("o/n") == (JobState.FAILED, code)
    assert sum(scripted_hub.sent.values()) < KILOBYTES
    assert len(files["adapter_model.safetensors"]) >= LARGE


def test_a_server_without_ranges_is_hung_up_on(scripted_hub: ScriptedHub, ingest: Ingest):
    large = 64 * 2**20
    scripted_hub.publishes("o/n", adapter(width=large // 16), ranges=False)
    assert ingest("o/n") == (JobState.FAILED, "shape_mismatch")
    # what had left the server when the client hung up lay in the buffers of both sockets
    assert sum(scripted_hub.sent.values()) < large / 4


def test_a_good_adapter_is_fetched_once_and_embedded(scripted_hub: ScriptedHub, ingest: Ingest, tmp_path: Path):
    files = good(tmp_path / "good")
    scripted_hub.publishes("o/n", files)
    assert ingest("o/n") == (JobState.DONE, None)
    for name, body in files.items():
        assert sum(count for path, count in scripted_hub.sent.items() if path.endswith(name)) == len(body)


@pytest.mark.parametrize("ingest", ["hub_server"], indirect=True)
def test_a_mirror_that_tells_neither_sizes_nor_ranges_serves_all_the_same(
    hub_server: HubServer, ingest: Ingest, tmp_path: Path
):
    hub_server.commit("screened/good", good(tmp_path / "good"))
    assert ingest("screened/good") == (JobState.DONE, None)


def test_a_header_longer_than_the_first_guess_is_read_whole(scripted_hub: ScriptedHub, ingest: Ingest):
    more = {f"other.{number:05}.weight": (1,) for number in range(2000)}
    files = adapter(width=LARGE // 16, **more)
    length = int.from_bytes(files["adapter_model.safetensors"][:8], "little")
    scripted_hub.publishes("o/n", files)
    assert ingest("o/n") == (JobState.FAILED, "shape_mismatch")
    assert length > 100_000
    assert sum(scripted_hub.sent.values()) < length + KILOBYTES


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


def test_the_header_of_every_shard_is_looked_at(scripted_hub: ScriptedHub, ingest: Ingest):
    files = full_model(LARGE // 128)
    scripted_hub.publishes("o/n", files | {"README.md": f"---\nbase_model: {pico.BASE_ID}\n---\n".encode()})
    assert ingest("o/n") == (JobState.FAILED, "shape_mismatch")
    assert sum(scripted_hub.sent.values()) < KILOBYTES


def test_a_shard_that_is_not_what_the_index_says_costs_kilobytes(scripted_hub: ScriptedHub, ingest: Ingest):
    files = full_model(LARGE // 128)
    first, second = sorted(name for name in files if name.startswith("model-"))
    scripted_hub.publishes("o/n", files | {first: files[second]})
    assert ingest("o/n") == (JobState.FAILED, "corrupt_weights")
    assert sum(scripted_hub.sent.values()) < KILOBYTES


def test_a_base_that_does_not_fit_is_not_fetched(scripted_hub: ScriptedHub, ingest: Ingest):
    scripted_hub.publishes("o/base", full_model(LARGE // 128))
    scripted_hub.publishes("o/n", adapter({"base_model_name_or_path": "o/base"}, width=16))
    assert ingest("o/n") == (JobState.FAILED, "shape_mismatch")
    assert sum(scripted_hub.sent.values()) < 2 * KILOBYTES
