from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog.errors import (
    NoSupportedWeights,
    PickledWeights,
    RepoNotFound,
    RevisionNotFound,
    UnsupportedBase,
)
from catalog.models.repository.models import Metadata
from tests.support.hub_client import ADAPTER, MODEL, fetch_all, files_in, make_hub
from tests.support.hub_server import Answer, HubServer, ScriptedHub
from workers.hub.client import Hub, RepoFile, RepoSnapshot


def test_resolve_returns_the_commit_of_main_and_the_listing(hub_server: HubServer, hub: Hub):
    sha = hub_server.commit("resolve/plain", ADAPTER)
    snapshot = hub.resolve("resolve/plain")
    assert (snapshot.repo_id, snapshot.sha) == ("resolve/plain", sha)
    assert {file.path for file in snapshot.files} == set(ADAPTER)


def test_resolve_sees_a_new_commit(hub_server: HubServer, hub: Hub):
    hub_server.commit("resolve/moving", ADAPTER)
    hub.resolve("resolve/moving")
    second = hub_server.commit("resolve/moving", {"README.md": b"more"})
    assert hub.resolve("resolve/moving").sha == second


def test_resolve_accepts_a_branch_and_an_older_commit(hub_server: HubServer, hub: Hub):
    first = hub_server.commit("resolve/branches", ADAPTER)
    hub_server.commit("resolve/branches", {"README.md": b"more"})
    branch = hub_server.commit("resolve/branches", ADAPTER, branch="dev")
    assert hub.resolve("resolve/branches", first).sha == first
    assert hub.resolve("resolve/branches", "dev").sha == branch


@pytest.mark.parametrize(
    ("card", "bases"),
    [
        (b"---\nbase_model: owner/base\n---\ntext", ("owner/base",)),
        (b"---\nbase_model:\n- owner/base\n---\n", ("owner/base",)),
        (b"---\nbase_model: [a/a, b/b, a/a]\n---\n", ("a/a", "b/b")),
        (b"---\nbase_model: [a/a, {b: c}, 3]\n---\n", ("a/a",)),
        (b"---\nlicense: mit\n---\n", ()),
        (b"no front matter", ()),
    ],
)
def test_bases_of_the_card_are_read(hub_server: HubServer, hub: Hub, card: bytes, bases: tuple[str, ...]):
    hub_server.commit("resolve/card", {**ADAPTER, "README.md": card})
    assert hub.resolve("resolve/card").card_bases == bases


def test_missing_repo_is_not_found(hub: Hub):
    with pytest.raises(RepoNotFound, match="no/such"):
        hub.resolve("no/such")


def test_invalid_repo_id_is_not_found(hub: Hub):
    with pytest.raises(RepoNotFound, match="not the id of a repo"):
        hub.resolve("a/b/c")


def test_metadata_is_read_from_the_listing(scripted_hub: ScriptedHub, scripted: Hub):
    info = {
        "id": "o/n",
        "sha": "a" * 40,
        "siblings": [],
        "tags": ["peft", "x" * 201, "with\0nul", "code"],
        "downloads": 12,
        "likes": 3,
        "lastModified": "2026-01-02T03:04:05.000Z",
        "cardData": {"license": "mit"},
    }
    scripted_hub.answer("/api/models/o/n", Answer(body=json.dumps(info).encode()))
    metadata = scripted.resolve("o/n").metadata
    assert (metadata.license, metadata.tags) == ("mit", ("peft", "code"))
    assert (metadata.downloads, metadata.likes) == (12, 3)
    assert metadata.hub_updated_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_metadata_of_a_mirror_may_be_empty(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(body=json.dumps({"id": "o/n", "sha": "a" * 40}).encode()))
    assert scripted.resolve("o/n").metadata == Metadata()


def test_missing_revision_is_named(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(404, {"X-Error-Code": "RevisionNotFound"}))
    with pytest.raises(RevisionNotFound, match="'v9'"):
        scripted.resolve("o/n", "v9")


def test_renamed_repo_has_the_new_name(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.answer("/api/models/old/n", Answer(307, {"Location": "/api/models/new/n/revision/main"}))
    scripted_hub.script_listing("new/n", {"config.json": 1})
    assert scripted.resolve("old/n").repo_id == "new/n"


def test_only_adapter_files_are_downloaded(hub_server: HubServer, hub: Hub):
    other_files = {
        "README.md": b"hi",
        "code.py": b"1",
        "optimizer.pt": b"p",
        **MODEL,
        "checkpoint-9/adapter_config.json": b"{}",
    }
    folder = fetch_all(hub, hub_server, "fetch/adapter", {**ADAPTER, **other_files})
    assert files_in(folder) == {*ADAPTER, "README.md"}
    assert (folder / "adapter_model.safetensors").read_bytes() == ADAPTER["adapter_model.safetensors"]


def test_only_model_and_tokenizer_files_are_downloaded(hub_server: HubServer, hub: Hub):
    wanted = {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": b"1",
        "model-00002-of-00002.safetensors": b"2",
        "model.safetensors.index.json": b"{}",
        "tokenizer.model": b"t",
        "chat_template.jinja": b"c",
        "merges.txt": b"m",
    }
    unwanted = {"consolidated.safetensors": b"x", "modeling.py": b"x", "onnx/model.safetensors": b"x", "a.bin": b"x"}
    assert files_in(fetch_all(hub, hub_server, "fetch/full", wanted | unwanted)) == set(wanted)


def test_config_of_a_pickled_adapter_is_not_downloaded_with_a_full_model(hub_server: HubServer, hub: Hub):
    folder = fetch_all(
        hub, hub_server, "fetch/merged", {**MODEL, "adapter_config.json": b"{}", "adapter_model.bin": b"p"}
    )
    assert files_in(folder) == set(MODEL)


def test_highest_checkpoint_with_an_adapter_is_downloaded(hub_server: HubServer, hub: Hub):
    nested = {f"checkpoint-{step}/{name}": body for step in (90, 100) for name, body in ADAPTER.items()}
    folder = fetch_all(hub, hub_server, "fetch/nested", {**nested, "checkpoint-200/adapter_config.json": b"{}"})
    assert folder.name == "checkpoint-100"
    assert files_in(folder.parent) == {f"checkpoint-100/{name}" for name in ADAPTER}


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "pytorch_model-00001-of-00002.bin", "model.ckpt", "x/a.pt", "m.pth"]
)
def test_pickled_weights_are_rejected(hub_server: HubServer, hub: Hub, name: str):
    with pytest.raises(PickledWeights, match="pickle"):
        fetch_all(hub, hub_server, f"pickled/{name.replace('/', '-')}", {name: b"p", "adapter_config.json": b"{}"})


@pytest.mark.parametrize(
    "files",
    [
        {"README.md": b""},
        {"training_args.bin": b"p", "optimizer.pt": b"p"},
        {"adapter_model.safetensors": b"w"},
        {"model.safetensors": b"w"},
        {"model.gguf": b"g", "config.json": b"{}"},
    ],
)
def test_repo_without_weights_is_rejected(hub_server: HubServer, hub: Hub, files: dict[str, bytes]):
    with pytest.raises(NoSupportedWeights):
        fetch_all(hub, hub_server, f"empty/n{abs(hash(tuple(files)))}", files)


def test_base_is_downloaded_with_config_weights_and_tokenizer(hub_server: HubServer, hub: Hub):
    hub_server.commit("fetch/base", {**MODEL, "tokenizer.json": b"{}", "tokenizer.py": b"x", **ADAPTER})
    assert files_in(hub.fetch_base(hub.resolve("fetch/base"))) == {*MODEL, "tokenizer.json"}


def test_base_config_is_downloaded_without_weights(hub_server: HubServer, hub: Hub, tmp_path: Path):
    hub_server.commit("fetch/config", MODEL)
    assert hub.base_config(hub.resolve("fetch/config")) == {"model_type": "llama"}
    assert not list(tmp_path.rglob("model.safetensors"))


@pytest.mark.parametrize("files", [{"README.md": b""}, {"config.json": b"[1]"}, {"config.json": b"{"}])
def test_base_without_a_valid_config_is_unsupported(hub_server: HubServer, hub: Hub, files: dict[str, bytes]):
    repo_id = f"fetch/noconfig{abs(hash(tuple(files.values())))}"
    hub_server.commit(repo_id, files)
    with pytest.raises(UnsupportedBase):
        hub.base_config(hub.resolve(repo_id))


def test_branch_with_an_adapter_is_named(scripted_hub: ScriptedHub, tmp_path: Path):
    scripted_hub.publish("o/n", {"README.md": b"text"})
    main, other, good = ScriptedHub.sha, "6" * 40, "7" * 40
    branches = [{"name": name, "targetCommit": sha} for name, sha in (("main", main), ("wip", other), ("r16", good))]
    scripted_hub.answer("/api/models/o/n/refs", Answer(body=json.dumps({"branches": branches, "tags": []}).encode()))
    for name, sha, files in (("wip", other, ["README.md"]), ("r16", good, list(ADAPTER))):
        info = {"id": "o/n", "sha": sha, "siblings": [{"rfilename": file} for file in files], "private": False}
        body = json.dumps(info | {"gated": False}).encode()
        scripted_hub.answer(f"/api/models/o/n/revision/{name}", Answer(body=body))
    hub = make_hub(scripted_hub.url, tmp_path)
    with pytest.raises(NoSupportedWeights, match=r"but one on its branch r16: submit it with r16 as its revision"):
        hub.choose(hub.resolve("o/n"))
    assert hub.choose(hub.resolve("o/n", "r16")).weights == ("adapter_model.safetensors",)


@pytest.mark.parametrize("refs", [b"{}", b"[]", b'{"branches": 7}', b'{"branches": [7, {"name": 7}]}', b"<html>"])
def test_refusal_does_not_depend_on_the_list_of_branches(scripted_hub: ScriptedHub, tmp_path: Path, refs: bytes):
    scripted_hub.publish("o/n", {"README.md": b"text"})
    scripted_hub.answer("/api/models/o/n/refs", Answer(body=refs))
    hub = make_hub(scripted_hub.url, tmp_path)
    with pytest.raises(NoSupportedWeights, match="no weights yet"):
        hub.choose(hub.resolve("o/n"))


def test_snapshot_without_weights_is_rejected(hub: Hub):
    with pytest.raises(NoSupportedWeights):
        hub.fetch_finetune(RepoSnapshot("o/n", "0" * 40, ()))
    with pytest.raises(NoSupportedWeights):
        hub.fetch_base(RepoSnapshot("o/n", "0" * 40, (RepoFile("README.md", 1),)))
