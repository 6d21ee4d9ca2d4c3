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
    HubRateLimited,
    HubUnavailable,
    NothingToEmbed,
    PickledWeights,
    RepoGated,
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
from workers.hub.client import Hub, RepoFile, RepoSnapshot, Taking
from workers.hub.rate_limits import HubLimits, Stop
from workers.hub.session import hub_errors, retry_after
from workers.process.cancellation import Stopped

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
    """For what is never answered; all else has to be answered in that time."""
    return make_hub(scripted_hub.url, tmp_path, timeout=3.0)


def fetched(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def fetch_all(hub: Hub, server: HubServer, repo_id: str, files: dict[str, bytes]) -> Path:
    server.commit(repo_id, files)
    return hub.fetch_finetune(hub.resolve(repo_id))


# resolve


def test_resolve_gives_the_commit_of_main_and_the_listing(hub_server: HubServer, hub: Hub):
    sha = hub_server.commit("resolve/plain", ADAPTER)
    snapshot = hub.resolve("resolve/plain")
    assert (snapshot.repo_id, snapshot.sha) == ("resolve/plain", sha)
    assert {file.path for file in snapshot.files} == set(ADAPTER)


def test_a_new_commit_is_seen_at_once(hub_server: HubServer, hub: Hub):
    hub_server.commit("resolve/moving", ADAPTER)
    hub.resolve("resolve/moving")
    second = hub_server.commit("resolve/moving", {"README.md": b"more"})
    assert hub.resolve("resolve/moving").sha == second


def test_a_branch_and_an_older_commit_resolve_to_their_own_commit(hub_server: HubServer, hub: Hub):
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
def test_the_card_names_the_base_where_it_names_exactly_one(hub_server: HubServer, hub: Hub, card: bytes, base):
    hub_server.commit("resolve/card", {**ADAPTER, "README.md": card})
    assert hub.resolve("resolve/card").card_base == base


def test_a_repo_that_is_not_there_is_not_found(hub: Hub):
    with pytest.raises(RepoNotFound, match="no/such"):
        hub.resolve("no/such")


def test_what_is_no_repo_id_is_not_found(hub: Hub):
    with pytest.raises(RepoNotFound, match="not the id of a repo"):
        hub.resolve("a/b/c")


def test_what_the_hub_tells_of_a_repo_is_kept(scripted_hub: ScriptedHub, scripted: Hub):
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
    assert (metadata.licence, metadata.tags) == ("mit", ("peft", "code"))
    assert (metadata.downloads, metadata.likes) == (12, 3)
    assert metadata.hub_updated_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_what_a_mirror_does_not_tell_is_not_known(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(body=json.dumps({"id": "o/n", "sha": "a" * 40}).encode()))
    assert scripted.resolve("o/n").metadata == Metadata()


def test_a_missing_revision_is_named(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(404, {"X-Error-Code": "RevisionNotFound"}))
    with pytest.raises(RevisionNotFound, match="'v9'"):
        scripted.resolve("o/n", "v9")


def test_a_renamed_repo_keeps_the_name_that_the_hub_has_for_it(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.answer("/api/models/old/n", Answer(307, {"Location": "/api/models/new/n/revision/main"}))
    scripted_hub.lists("new/n", {"config.json": 1})
    assert scripted.resolve("old/n").repo_id == "new/n"


@pytest.mark.parametrize(
    "body", [b"<html>a login page</html>", b"[]", b'{"id": "o/n"}', b'{"id": "o/n", "sha": "../.."}']
)
def test_an_answer_that_makes_no_sense_is_transient(scripted_hub: ScriptedHub, scripted: Hub, body: bytes):
    scripted_hub.answer("/api/models/o/n", Answer(body=body))
    with pytest.raises(HubUnavailable):
        scripted.resolve("o/n")


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, RepoNotFound),
        (401, {}, RepoGated),
        (403, {}, RepoGated),
        (403, {"X-Error-Code": "GatedRepo"}, RepoGated),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, RepoNotFound),
        (404, {}, RepoNotFound),
        (410, {}, RepoNotFound),
        (418, {}, HubUnavailable),
        (500, {}, HubUnavailable),
        (503, {}, HubUnavailable),
    ],
)
def test_each_status_has_its_typed_error(
    scripted_hub: ScriptedHub, scripted: Hub, status: int, headers: dict[str, str], error: type[CatalogError]
):
    scripted_hub.answer("/api/models/o/n", Answer(status, headers))
    with pytest.raises(error):
        scripted.resolve("o/n")


def test_a_rate_limit_is_raised_at_once_with_the_wait_that_the_hub_asks_for(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(429, {"Retry-After": "120"}))
    with pytest.raises(HubRateLimited) as caught:
        scripted.resolve("o/n")
    assert caught.value.retry_after == 120.0
    assert len(scripted_hub.requests) == 1


def test_a_hub_that_is_silent_is_given_up(scripted_hub: ScriptedHub, impatient: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(silent=True))
    with pytest.raises(HubUnavailable, match="No answer"):
        impatient.resolve("o/n")
    assert len(scripted_hub.requests) == 1


def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.lists("o/n", {"config.json": 1})
    scripted_hub.hang_ups = 1
    assert scripted.resolve("o/n").repo_id == "o/n"


def test_a_hub_that_hangs_up_twice_is_unavailable(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.lists("o/n", {"config.json": 1})
    scripted_hub.hang_ups = 2
    with pytest.raises(HubUnavailable, match="No answer"):
        scripted.resolve("o/n")


def test_a_hub_that_is_down_is_unavailable(tmp_path: Path):
    with pytest.raises(HubUnavailable, match="No answer"):
        make_hub(f"http://127.0.0.1:{free_port()}", tmp_path).resolve("o/n")


def test_the_token_is_sent_and_none_is_taken_from_the_environment(
    scripted_hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "of-somebody-else")
    scripted_hub.lists("o/n", {"config.json": 1})
    limits = {"timeout": 5.0, "max_file_bytes": 100, "max_repo_files": 100}
    Hub(scripted_hub.url, "ours", tmp_path, **limits).resolve("o/n")
    Hub(scripted_hub.url, None, tmp_path, **limits).resolve("o/n")
    sent = [headers.get("Authorization", headers.get("authorization")) for _, _, headers in scripted_hub.requests]
    assert sent == ["Bearer ours", None]


# fetch


def test_an_adapter_comes_without_the_rest_of_its_repo(hub_server: HubServer, hub: Hub):
    more = {
        "README.md": b"hi",
        "code.py": b"1",
        "optimizer.pt": b"p",
        **MODEL,
        "checkpoint-9/adapter_config.json": b"{}",
    }
    folder = fetch_all(hub, hub_server, "fetch/adapter", {**ADAPTER, **more})
    assert fetched(folder) == {*ADAPTER, "README.md"}
    assert (folder / "adapter_model.safetensors").read_bytes() == ADAPTER["adapter_model.safetensors"]


def test_a_full_model_comes_with_its_shards_and_tokenizer_and_nothing_else(hub_server: HubServer, hub: Hub):
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
    assert fetched(fetch_all(hub, hub_server, "fetch/full", wanted | unwanted)) == set(wanted)


def test_a_full_model_leaves_a_pickled_adapters_config_behind(hub_server: HubServer, hub: Hub):
    folder = fetch_all(
        hub, hub_server, "fetch/merged", {**MODEL, "adapter_config.json": b"{}", "adapter_model.bin": b"p"}
    )
    assert fetched(folder) == set(MODEL)


def test_of_nested_adapters_the_highest_checkpoint_is_taken(hub_server: HubServer, hub: Hub):
    nested = {f"checkpoint-{step}/{name}": body for step in (90, 100) for name, body in ADAPTER.items()}
    folder = fetch_all(hub, hub_server, "fetch/nested", {**nested, "checkpoint-200/adapter_config.json": b"{}"})
    assert folder.name == "checkpoint-100"
    assert fetched(folder.parent) == {f"checkpoint-100/{name}" for name in ADAPTER}


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "pytorch_model-00001-of-00002.bin", "model.ckpt", "x/a.pt", "m.pth"]
)
def test_pickled_weights_are_refused(hub_server: HubServer, hub: Hub, name: str):
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
def test_a_repo_without_weights_is_refused(hub_server: HubServer, hub: Hub, files: dict[str, bytes]):
    with pytest.raises(NothingToEmbed):
        fetch_all(hub, hub_server, f"empty/n{abs(hash(tuple(files)))}", files)


def test_a_base_comes_with_config_weights_and_tokenizer(hub_server: HubServer, hub: Hub):
    hub_server.commit("fetch/base", {**MODEL, "tokenizer.json": b"{}", "tokenizer.py": b"x", **ADAPTER})
    assert fetched(hub.fetch_base(hub.resolve("fetch/base"))) == {*MODEL, "tokenizer.json"}


def test_a_bases_config_comes_alone(hub_server: HubServer, hub: Hub, tmp_path: Path):
    hub_server.commit("fetch/config", MODEL)
    assert hub.base_config(hub.resolve("fetch/config")) == {"model_type": "llama"}
    assert not list(tmp_path.rglob("model.safetensors"))


@pytest.mark.parametrize("files", [{"README.md": b""}, {"config.json": b"[1]"}, {"config.json": b"{"}])
def test_a_base_without_a_usable_config_is_unsupported(hub_server: HubServer, hub: Hub, files: dict[str, bytes]):
    repo_id = f"fetch/noconfig{abs(hash(tuple(files.values())))}"
    hub_server.commit(repo_id, files)
    with pytest.raises(UnsupportedBase):
        hub.base_config(hub.resolve(repo_id))


def test_the_files_are_those_of_the_resolved_commit_whatever_came_later(hub_server: HubServer, hub: Hub):
    hub_server.commit("fetch/pinned", ADAPTER)
    snapshot = hub.resolve("fetch/pinned")
    hub_server.commit("fetch/pinned", {"adapter_model.safetensors": b"later" * 100})
    folder = hub.fetch_finetune(snapshot)
    assert (folder / "adapter_model.safetensors").read_bytes() == ADAPTER["adapter_model.safetensors"]


def test_a_new_commit_downloads_only_what_changed(hub_server: HubServer, hub: Hub):
    fetch_all(hub, hub_server, "fetch/again", ADAPTER)
    hub_server.commit("fetch/again", {"README.md": b"new"})
    blobs = hub.fetch_finetune(hub.resolve("fetch/again")).parents[1] / "blobs"
    assert len(list(blobs.iterdir())) == 3


def test_files_that_lie_here_are_not_asked_for_again(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.lists("o/n", {name: len(body) for name, body in ADAPTER.items()})
    for name, body in ADAPTER.items():
        scripted_hub.serves("o/n", name, body, etag=name)
    snapshot = scripted.resolve("o/n")
    first = scripted.fetch_finetune(snapshot)
    asked = len(scripted_hub.requests)
    assert scripted.fetch_finetune(snapshot) == first
    assert len(scripted_hub.requests) == asked


def test_files_that_lie_here_are_used_while_the_hub_is_away(hub_server: HubServer, hub: Hub, tmp_path: Path):
    hub_server.commit("fetch/kept", ADAPTER)
    snapshot = hub.resolve("fetch/kept")
    folder = hub.fetch_finetune(snapshot)
    assert make_hub(f"http://127.0.0.1:{free_port()}", tmp_path).fetch_finetune(snapshot) == folder


def test_progress_ends_at_the_total(hub_server: HubServer, hub: Hub):
    hub_server.commit("fetch/progress", ADAPTER)
    seen: list[tuple[int, int]] = []
    taking = Taking(progress=lambda done, total: seen.append((done, total)))
    hub.fetch_finetune(hub.resolve("fetch/progress"), taking)
    total = sum(len(body) for body in ADAPTER.values())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_progress_callback_can_stop_the_download(hub_server: HubServer, hub: Hub):
    hub_server.commit("fetch/stopped", ADAPTER)

    def stop(done: int, total: int) -> None:
        raise Stopped

    snapshot = hub.resolve("fetch/stopped")
    with pytest.raises(Stopped):
        hub.fetch_finetune(snapshot, Taking(progress=stop))


def test_several_repos_download_at_once(hub_server: HubServer, hub: Hub):
    for number in range(8):
        hub_server.commit(f"parallel/n{number}", {**ADAPTER, "README.md": str(number).encode()})

    def fetch(number: int) -> bytes:
        return (hub.fetch_finetune(hub.resolve(f"parallel/n{number}")) / "README.md").read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fetch, range(8))) == [str(number).encode() for number in range(8)]


# what is refused


def test_more_files_than_the_limit_are_refused_before_anything_is_fetched(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.lists("o/n", dict.fromkeys([*ADAPTER, *(f"part-{number}.json" for number in range(50_000))], 1))
    snapshot = scripted.resolve("o/n")
    with pytest.raises(TooManyFiles, match="50,002"):
        scripted.fetch_finetune(snapshot)
    assert len(scripted_hub.requests) == 1


def test_a_file_over_the_limit_is_refused_before_it_is_fetched(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.lists("o/n", {"adapter_config.json": 2, "adapter_model.safetensors": 10_001})
    snapshot = scripted.resolve("o/n")
    with pytest.raises(FileTooLarge, match="10,001"):
        scripted.fetch_finetune(snapshot)
    assert len(scripted_hub.requests) == 1


def test_sizes_that_the_listing_does_not_tell_are_asked_for(hub_server: HubServer, hub: Hub):
    hub_server.commit("limits/large", {**ADAPTER, "adapter_model.safetensors": b"w" * 10_001})
    snapshot = hub.resolve("limits/large")
    assert {file.size for file in snapshot.files} == {None}
    with pytest.raises(FileTooLarge, match="10,001"):
        hub.fetch_finetune(snapshot)


def test_a_config_may_not_be_as_large_as_weights(scripted_hub: ScriptedHub, tmp_path: Path):
    hub = make_hub(scripted_hub.url, tmp_path, max_file_bytes=10**9)
    scripted_hub.lists("o/n", {"adapter_config.json": 17 * 2**20, "adapter_model.safetensors": 17 * 2**20})
    snapshot = hub.resolve("o/n")
    with pytest.raises(FileTooLarge, match="adapter_config"):
        hub.choose(snapshot)


def test_no_more_files_are_fetched_at_once_than_may(hub_server: HubServer, tmp_path: Path):
    running, most, changed = 0, 0, threading.Condition()

    class Counting(HubLimits):
        @contextmanager
        def download(self, stop: Stop | None = None) -> Iterator[Callable[[], None]]:
            nonlocal running, most
            with changed:
                running += 1
                most = max(most, running)
                changed.notify_all()
                assert changed.wait_for(lambda: most >= 2, LIMIT)
            time.sleep(0.02)  # room for one too many
            yield lambda: None
            with changed:
                running -= 1

    hub = make_hub(hub_server.url, tmp_path, downloads=2, limits=Counting())
    for number in range(6):
        hub_server.commit(f"at-once/n{number}", ADAPTER)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: hub.fetch_finetune(hub.resolve(f"at-once/n{number}")), range(6)))
    assert most == 2


def test_a_file_that_grows_over_the_limit_on_its_way_is_stopped(
    scripted_hub: ScriptedHub, scripted: Hub, tmp_path: Path
):
    scripted_hub.lists("o/n", dict.fromkeys(ADAPTER, 2))
    scripted_hub.serves("o/n", "adapter_config.json", b"x" * 20_000)
    snapshot = scripted.resolve("o/n")
    with pytest.raises(FileTooLarge, match="adapter_config"):
        scripted.fetch_finetune(snapshot)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 10_000]


def test_more_bytes_than_the_disk_has_free_are_not_begun(scripted_hub: ScriptedHub, tmp_path: Path):
    hub = make_hub(scripted_hub.url, tmp_path, max_file_bytes=10**18)
    sizes = {"adapter_config.json": 2, "adapter_model.safetensors": 10**17}
    siblings = [{"rfilename": name, "size": size, "blobId": "a" * 40} for name, size in sizes.items()]
    scripted_hub.lists("o/n", {}, siblings=siblings)
    snapshot = hub.resolve("o/n")
    with pytest.raises(DiskFull):
        hub.fetch_finetune(snapshot)
    assert scripted_hub.downloads() == []


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full here")
def test_a_disk_that_fills_up_is_disk_full():
    with pytest.raises(DiskFull), hub_errors("o/n"), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")


def test_a_local_fault_that_is_not_the_hubs_stays_what_it_is():
    with pytest.raises(PermissionError), hub_errors("o/n"):
        raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    "path",
    ["../adapter_config.json", "a/../../b.json", "/etc/passwd", "a\\b.json", "C:/x.json", "a//b.json", "./a.json"],
)
def test_path_tricks_are_refused(scripted_hub: ScriptedHub, scripted: Hub, path: str):
    scripted_hub.lists("o/n", dict.fromkeys([*ADAPTER, path], 1))
    snapshot = scripted.resolve("o/n")
    with pytest.raises(UnsafePath):
        scripted.fetch_finetune(snapshot)
    assert len(scripted_hub.requests) == 1


def test_an_etag_that_points_at_a_file_of_this_machine_is_refused(scripted_hub: ScriptedHub, tmp_path: Path):
    (tmp_path / "secret").write_text("secret")
    hub = make_hub(scripted_hub.url, tmp_path / "downloads")
    scripted_hub.lists("o/n", dict.fromkeys(ADAPTER, 1))
    scripted_hub.serves("o/n", "adapter_config.json", b"{", etag="../../../secret")
    snapshot = hub.resolve("o/n")
    with pytest.raises(UnsafePath, match="leads out"):
        hub.fetch_finetune(snapshot)
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_gated_repo_says_what_to_do(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.lists("o/n", dict.fromkeys(ADAPTER, 1))
    scripted_hub.answer("/o/n/resolve/", Answer(403, {"X-Error-Code": "GatedRepo"}))
    snapshot = scripted.resolve("o/n")
    with pytest.raises(RepoGated, match="HF_TOKEN"):
        scripted.fetch_finetune(snapshot)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(429, {"Retry-After": "7"}), HubRateLimited),
        (Answer(502), HubUnavailable),
        (Answer(401), RepoGated),
        (Answer(404, {"X-Error-Code": "EntryNotFound"}), HubUnavailable),
        (Answer(200), HubUnavailable),  # no ETag: not a Hub
    ],
)
def test_a_download_that_fails_has_its_typed_error(
    scripted_hub: ScriptedHub, scripted: Hub, answer: Answer, error: type[CatalogError]
):
    scripted_hub.lists("o/n", dict.fromkeys(ADAPTER, 1))
    scripted_hub.answer("/o/n/resolve/", answer)
    snapshot = scripted.resolve("o/n")
    with pytest.raises(error):
        scripted.fetch_finetune(snapshot)


def test_a_download_that_never_begins_is_given_up(scripted_hub: ScriptedHub, impatient: Hub):
    scripted_hub.lists("o/n", dict.fromkeys(ADAPTER, 1))
    scripted_hub.answer("/o/n/resolve/", Answer(silent=True))
    snapshot = impatient.resolve("o/n")
    with pytest.raises(HubUnavailable):
        impatient.fetch_finetune(snapshot)


def test_a_server_that_breaks_off_and_cannot_resume_is_given_up(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.lists("o/n", dict.fromkeys(ADAPTER, 100))
    scripted_hub.serves("o/n", "adapter_config.json", b"x" * 10_000, cut=9_000, ranges=False)
    scripted_hub.serves("o/n", "adapter_model.safetensors", b"x" * 300)
    snapshot = scripted.resolve("o/n")
    with pytest.raises(HubUnavailable, match="broke off"):
        scripted.fetch_finetune(snapshot)
    assert [command for command, _, _ in scripted_hub.downloads("adapter_config.json")] == ["HEAD", "GET", "GET"]


def test_nothing_of_the_hubs_own_progress_bars_is_printed(
    hub_server: HubServer, hub: Hub, capfd: pytest.CaptureFixture[str]
):
    fetch_all(hub, hub_server, "fetch/quiet", ADAPTER)
    assert capfd.readouterr() == ("", "")


def test_a_snapshot_without_files_is_nothing_to_embed(hub: Hub):
    with pytest.raises(NothingToEmbed):
        hub.fetch_finetune(RepoSnapshot("o/n", "0" * 40, ()))
    with pytest.raises(NothingToEmbed):
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
def test_the_wait_is_read_from_the_headers(headers: dict[str, str], seconds: float | None):
    assert retry_after(httpx2.Headers(headers)) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(600, 600), (-600, 0)])
def test_the_wait_until_a_date_is_the_time_that_is_left(ahead: float, seconds: float):
    date = formatdate(time.time() + ahead, usegmt=True)
    assert retry_after(httpx2.Headers({"Retry-After": date})) == pytest.approx(seconds, abs=60)


def test_a_token_that_no_header_can_carry_is_refused_and_not_repeated(scripted_hub: ScriptedHub, tmp_path: Path):
    hub = Hub(scripted_hub.url, "hf_swordfish\n", tmp_path, timeout=30, max_file_bytes=10**9, max_repo_files=100)
    with pytest.raises(CatalogError) as refused:
        hub.resolve("o/n")
    assert "swordfish" not in str(refused.value)
