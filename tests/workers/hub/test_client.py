from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import httpx2
import pytest

from catalog.errors import (
    CatalogError,
    DiskFull,
    FileTooLarge,
    GatedRepo,
    HubRateLimited,
    HubUnavailable,
    NoSupportedWeights,
    PickledWeights,
    RepoNotFound,
    RevisionNotFound,
    TooManyFiles,
    UnsafePath,
    UnsupportedBase,
)
from catalog.models.repository.models import Metadata
from tests.support.hub_server import Answer, HubServer, ScriptedHub
from tests.support.ports import free_port
from tests.support.waiting import LIMIT
from workers.hub.client import FetchOptions, Hub, RepoFile, RepoSnapshot
from workers.hub.rate_limits import HubLimits, Stop
from workers.hub.session import hub_errors, retry_after
from workers.process.cancellation import Cancelled

ADAPTER = {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.safetensors": b"w" * 300}
MODEL = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"m" * 300}


def make_hub(url: str, folder: Path, **limits) -> Hub:
    limits = {"timeout": LIMIT, "max_file_bytes": 10_000, "max_repo_files": 100} | limits
    return Hub(url, None, folder, **limits)


@pytest.fixture
def hub(hub_server: HubServer, tmp_path: Path) -> Hub:
    return make_hub(hub_server.url, tmp_path)


@pytest.fixture
def scripted(scripted_hub: ScriptedHub, tmp_path: Path) -> Hub:
    return make_hub(scripted_hub.url, tmp_path)


@pytest.fixture
def impatient(scripted_hub: ScriptedHub, tmp_path: Path) -> Hub:
    """A hub with a short timeout, for requests that are never answered."""
    return make_hub(scripted_hub.url, tmp_path, timeout=3.0)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def fetch_all(hub: Hub, server: HubServer, repo_id: str, files: dict[str, bytes]) -> Path:
    server.commit(repo_id, files)
    return hub.fetch_finetune(hub.resolve(repo_id))


# resolve


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
    ("card", "base"),
    [
        (b"---\nbase_model: owner/base\n---\ntext", "owner/base"),
        (b"---\nbase_model:\n- owner/base\n---\n", "owner/base"),
        (b"---\nbase_model: [a/a, b/b]\n---\n", None),
        (b"---\nlicense: mit\n---\n", None),
        (b"no front matter", None),
    ],
)
def test_card_base_is_read_if_the_card_names_exactly_one(hub_server: HubServer, hub: Hub, card: bytes, base):
    hub_server.commit("resolve/card", {**ADAPTER, "README.md": card})
    assert hub.resolve("resolve/card").card_base == base


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


@pytest.mark.parametrize(
    "body", [b"<html>a login page</html>", b"[]", b'{"id": "o/n"}', b'{"id": "o/n", "sha": "../.."}']
)
def test_malformed_answer_is_a_transient_error(scripted_hub: ScriptedHub, scripted: Hub, body: bytes):
    scripted_hub.answer("/api/models/o/n", Answer(body=body))
    with pytest.raises(HubUnavailable):
        scripted.resolve("o/n")


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, RepoNotFound),
        (401, {}, GatedRepo),
        (403, {}, GatedRepo),
        (403, {"X-Error-Code": "GatedRepo"}, GatedRepo),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, RepoNotFound),
        (404, {}, RepoNotFound),
        (410, {}, RepoNotFound),
        (418, {}, HubUnavailable),
        (500, {}, HubUnavailable),
        (503, {}, HubUnavailable),
    ],
)
def test_status_raises_its_error_class(
    scripted_hub: ScriptedHub, scripted: Hub, status: int, headers: dict[str, str], error: type[CatalogError]
):
    scripted_hub.answer("/api/models/o/n", Answer(status, headers))
    with pytest.raises(error):
        scripted.resolve("o/n")


def test_429_is_raised_at_once_with_its_retry_after(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(429, {"Retry-After": "120"}))
    with pytest.raises(HubRateLimited) as caught:
        scripted.resolve("o/n")
    assert caught.value.retry_after == 120.0
    assert len(scripted_hub.requests) == 1


def test_silent_hub_times_out(scripted_hub: ScriptedHub, impatient: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(hangs=True))
    with pytest.raises(HubUnavailable, match="No answer"):
        impatient.resolve("o/n")
    assert len(scripted_hub.requests) == 1


def test_closed_kept_alive_connection_is_replaced(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.script_listing("o/n", {"config.json": 1})
    scripted_hub.connections_to_drop = 1
    assert scripted.resolve("o/n").repo_id == "o/n"


def test_hub_that_closes_two_connections_is_unavailable(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.script_listing("o/n", {"config.json": 1})
    scripted_hub.connections_to_drop = 2
    with pytest.raises(HubUnavailable, match="No answer"):
        scripted.resolve("o/n")


def test_hub_that_is_down_is_unavailable(tmp_path: Path):
    with pytest.raises(HubUnavailable, match="No answer"):
        make_hub(f"http://127.0.0.1:{free_port()}", tmp_path).resolve("o/n")


def test_token_is_sent_and_the_environment_is_ignored(
    scripted_hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "another-token")
    scripted_hub.script_listing("o/n", {"config.json": 1})
    limits = {"timeout": 5.0, "max_file_bytes": 100, "max_repo_files": 100}
    Hub(scripted_hub.url, "ours", tmp_path, **limits).resolve("o/n")
    Hub(scripted_hub.url, None, tmp_path, **limits).resolve("o/n")
    sent = [headers.get("Authorization", headers.get("authorization")) for _, _, headers in scripted_hub.requests]
    assert sent == ["Bearer ours", None]


# fetch


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


def test_files_are_those_of_the_resolved_commit(hub_server: HubServer, hub: Hub):
    hub_server.commit("fetch/pinned", ADAPTER)
    snapshot = hub.resolve("fetch/pinned")
    hub_server.commit("fetch/pinned", {"adapter_model.safetensors": b"later" * 100})
    folder = hub.fetch_finetune(snapshot)
    assert (folder / "adapter_model.safetensors").read_bytes() == ADAPTER["adapter_model.safetensors"]


def test_new_commit_downloads_only_changed_files(hub_server: HubServer, hub: Hub):
    fetch_all(hub, hub_server, "fetch/again", ADAPTER)
    hub_server.commit("fetch/again", {"README.md": b"new"})
    blobs = hub.fetch_finetune(hub.resolve("fetch/again")).parents[1] / "blobs"
    assert len(list(blobs.iterdir())) == 3


def test_downloaded_files_are_not_requested_again(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.script_listing("o/n", {name: len(body) for name, body in ADAPTER.items()})
    for name, body in ADAPTER.items():
        scripted_hub.serve_file("o/n", name, body, etag=name)
    snapshot = scripted.resolve("o/n")
    first = scripted.fetch_finetune(snapshot)
    requests = len(scripted_hub.requests)
    assert scripted.fetch_finetune(snapshot) == first
    assert len(scripted_hub.requests) == requests


def test_downloaded_files_are_used_while_the_hub_is_down(hub_server: HubServer, hub: Hub, tmp_path: Path):
    hub_server.commit("fetch/kept", ADAPTER)
    snapshot = hub.resolve("fetch/kept")
    folder = hub.fetch_finetune(snapshot)
    assert make_hub(f"http://127.0.0.1:{free_port()}", tmp_path).fetch_finetune(snapshot) == folder


def test_progress_ends_at_the_total(hub_server: HubServer, hub: Hub):
    hub_server.commit("fetch/progress", ADAPTER)
    reports: list[tuple[int, int]] = []
    options = FetchOptions(progress=lambda done, total: reports.append((done, total)))
    hub.fetch_finetune(hub.resolve("fetch/progress"), options)
    total = sum(len(body) for body in ADAPTER.values())
    assert reports[-1] == (total, total)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)


def test_progress_callback_can_stop_the_download(hub_server: HubServer, hub: Hub):
    hub_server.commit("fetch/stopped", ADAPTER)

    def stop(done: int, total: int) -> None:
        raise Cancelled

    snapshot = hub.resolve("fetch/stopped")
    with pytest.raises(Cancelled):
        hub.fetch_finetune(snapshot, FetchOptions(progress=stop))


def test_several_repos_download_concurrently(hub_server: HubServer, hub: Hub):
    for number in range(8):
        hub_server.commit(f"parallel/n{number}", {**ADAPTER, "README.md": str(number).encode()})

    def fetch(number: int) -> bytes:
        return (hub.fetch_finetune(hub.resolve(f"parallel/n{number}")) / "README.md").read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fetch, range(8))) == [str(number).encode() for number in range(8)]


# what is rejected


def test_too_many_files_are_rejected_before_any_download(scripted_hub: ScriptedHub, scripted: Hub):
    paths = [*ADAPTER, *(f"part-{number}.json" for number in range(50_000))]
    scripted_hub.script_listing("o/n", dict.fromkeys(paths, 1))
    snapshot = scripted.resolve("o/n")
    with pytest.raises(TooManyFiles, match="50,002"):
        scripted.fetch_finetune(snapshot)
    assert len(scripted_hub.requests) == 1


def test_file_over_the_size_limit_is_rejected_before_its_download(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.script_listing("o/n", {"adapter_config.json": 2, "adapter_model.safetensors": 10_001})
    snapshot = scripted.resolve("o/n")
    with pytest.raises(FileTooLarge, match="10,001"):
        scripted.fetch_finetune(snapshot)
    assert len(scripted_hub.requests) == 1


def test_unlisted_size_is_requested_and_checked(hub_server: HubServer, hub: Hub):
    hub_server.commit("limits/large", {**ADAPTER, "adapter_model.safetensors": b"w" * 10_001})
    snapshot = hub.resolve("limits/large")
    assert {file.size for file in snapshot.files} == {None}
    with pytest.raises(FileTooLarge, match="10,001"):
        hub.fetch_finetune(snapshot)


def test_config_has_a_lower_size_limit(scripted_hub: ScriptedHub, tmp_path: Path):
    hub = make_hub(scripted_hub.url, tmp_path, max_file_bytes=10**9)
    scripted_hub.script_listing("o/n", {"adapter_config.json": 17 * 2**20, "adapter_model.safetensors": 17 * 2**20})
    snapshot = hub.resolve("o/n")
    with pytest.raises(FileTooLarge, match="adapter_config"):
        hub.choose(snapshot)


def test_number_of_concurrent_downloads_is_limited(hub_server: HubServer, tmp_path: Path):
    running, peak, changed = 0, 0, threading.Condition()

    class Counting(HubLimits):
        @contextmanager
        def download(self, stop: Stop | None = None) -> Iterator[Callable[[], None]]:
            nonlocal running, peak
            with changed:
                running += 1
                peak = max(peak, running)
                changed.notify_all()
                assert changed.wait_for(lambda: peak >= 2, LIMIT)
            time.sleep(0.02)  # time for a further download to start
            yield lambda: None
            with changed:
                running -= 1

    hub = make_hub(hub_server.url, tmp_path, downloads=2, limits=Counting())
    for number in range(6):
        hub_server.commit(f"at-once/n{number}", ADAPTER)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: hub.fetch_finetune(hub.resolve(f"at-once/n{number}")), range(6)))
    assert peak == 2


def test_file_larger_than_its_listed_size_is_rejected(scripted_hub: ScriptedHub, scripted: Hub, tmp_path: Path):
    scripted_hub.script_listing("o/n", dict.fromkeys(ADAPTER, 2))
    scripted_hub.serve_file("o/n", "adapter_config.json", b"x" * 20_000)
    snapshot = scripted.resolve("o/n")
    with pytest.raises(FileTooLarge, match="adapter_config"):
        scripted.fetch_finetune(snapshot)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 10_000]


def test_download_larger_than_the_free_disk_is_not_started(scripted_hub: ScriptedHub, tmp_path: Path):
    hub = make_hub(scripted_hub.url, tmp_path, max_file_bytes=10**18)
    sizes = {"adapter_config.json": 2, "adapter_model.safetensors": 10**17}
    siblings = [{"rfilename": name, "size": size, "blobId": "a" * 40} for name, size in sizes.items()]
    scripted_hub.script_listing("o/n", {}, siblings=siblings)
    snapshot = hub.resolve("o/n")
    with pytest.raises(DiskFull):
        hub.fetch_finetune(snapshot)
    assert scripted_hub.download_requests() == []


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full here")
def test_full_disk_is_disk_full():
    with pytest.raises(DiskFull), hub_errors("o/n"), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")


def test_local_error_is_not_translated():
    with pytest.raises(PermissionError), hub_errors("o/n"):
        raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    "path",
    ["../adapter_config.json", "a/../../b.json", "/etc/passwd", "a\\b.json", "C:/x.json", "a//b.json", "./a.json"],
)
def test_unsafe_paths_are_rejected(scripted_hub: ScriptedHub, scripted: Hub, path: str):
    scripted_hub.script_listing("o/n", dict.fromkeys([*ADAPTER, path], 1))
    snapshot = scripted.resolve("o/n")
    with pytest.raises(UnsafePath):
        scripted.fetch_finetune(snapshot)
    assert len(scripted_hub.requests) == 1


def test_etag_that_leads_out_of_the_cache_is_rejected(scripted_hub: ScriptedHub, tmp_path: Path):
    (tmp_path / "secret").write_text("secret")
    hub = make_hub(scripted_hub.url, tmp_path / "downloads")
    scripted_hub.script_listing("o/n", dict.fromkeys(ADAPTER, 1))
    scripted_hub.serve_file("o/n", "adapter_config.json", b"{", etag="../../../secret")
    snapshot = hub.resolve("o/n")
    with pytest.raises(UnsafePath, match="leads out"):
        hub.fetch_finetune(snapshot)
    assert (tmp_path / "secret").read_text() == "secret"


def test_gated_repo_error_says_what_to_do(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.script_listing("o/n", dict.fromkeys(ADAPTER, 1))
    scripted_hub.answer("/o/n/resolve/", Answer(403, {"X-Error-Code": "GatedRepo"}))
    snapshot = scripted.resolve("o/n")
    with pytest.raises(GatedRepo, match="HF_TOKEN"):
        scripted.fetch_finetune(snapshot)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(429, {"Retry-After": "7"}), HubRateLimited),
        (Answer(502), HubUnavailable),
        (Answer(401), GatedRepo),
        (Answer(404, {"X-Error-Code": "EntryNotFound"}), HubUnavailable),
        (Answer(200), HubUnavailable),  # no ETag: not a Hub
    ],
)
def test_failed_download_raises_its_error_class(
    scripted_hub: ScriptedHub, scripted: Hub, answer: Answer, error: type[CatalogError]
):
    scripted_hub.script_listing("o/n", dict.fromkeys(ADAPTER, 1))
    scripted_hub.answer("/o/n/resolve/", answer)
    snapshot = scripted.resolve("o/n")
    with pytest.raises(error):
        scripted.fetch_finetune(snapshot)


def test_silent_download_times_out(scripted_hub: ScriptedHub, impatient: Hub):
    scripted_hub.script_listing("o/n", dict.fromkeys(ADAPTER, 1))
    scripted_hub.answer("/o/n/resolve/", Answer(hangs=True))
    snapshot = impatient.resolve("o/n")
    with pytest.raises(HubUnavailable):
        impatient.fetch_finetune(snapshot)


def test_download_fails_after_two_breaks_on_a_server_without_ranges(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.script_listing("o/n", dict.fromkeys(ADAPTER, 100))
    scripted_hub.serve_file("o/n", "adapter_config.json", b"x" * 10_000, cut_after=9_000, supports_ranges=False)
    scripted_hub.serve_file("o/n", "adapter_model.safetensors", b"x" * 300)
    snapshot = scripted.resolve("o/n")
    with pytest.raises(HubUnavailable, match="broke off"):
        scripted.fetch_finetune(snapshot)
    requests = scripted_hub.download_requests("adapter_config.json")
    assert [method for method, _, _ in requests] == ["HEAD", "GET", "GET"]


def test_no_progress_bars_are_printed(hub_server: HubServer, hub: Hub, capfd: pytest.CaptureFixture[str]):
    fetch_all(hub, hub_server, "fetch/quiet", ADAPTER)
    assert capfd.readouterr() == ("", "")


def test_snapshot_without_weights_is_rejected(hub: Hub):
    with pytest.raises(NoSupportedWeights):
        hub.fetch_finetune(RepoSnapshot("o/n", "0" * 40, ()))
    with pytest.raises(NoSupportedWeights):
        hub.fetch_base(RepoSnapshot("o/n", "0" * 40, (RepoFile("README.md", 1),)))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api";r=3;t=55'}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_from_the_headers(headers: dict[str, str], seconds: float | None):
    assert retry_after(httpx2.Headers(headers)) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(600, 600), (-600, 0)])
def test_retry_after_may_be_a_date(ahead: float, seconds: float):
    date = formatdate(time.time() + ahead, usegmt=True)
    assert retry_after(httpx2.Headers({"Retry-After": date})) == pytest.approx(seconds, abs=60)


def test_token_with_invalid_characters_is_rejected_and_not_repeated(scripted_hub: ScriptedHub, tmp_path: Path):
    hub = Hub(scripted_hub.url, "hf_swordfish\n", tmp_path, timeout=30, max_file_bytes=10**9, max_repo_files=100)
    with pytest.raises(CatalogError) as refused:
        hub.resolve("o/n")
    assert "swordfish" not in str(refused.value)
