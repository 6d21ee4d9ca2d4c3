from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalog.errors import (
    CatalogError,
    DiskFull,
    FileTooLarge,
    GatedRepo,
    HubRateLimited,
    HubUnavailable,
    TooManyFiles,
    UnsafePath,
)
from tests.support.hub_client import ADAPTER, fetch_all, make_hub
from tests.support.hub_server import Answer, HubServer, ScriptedHub
from tests.support.ports import free_port
from tests.support.waiting import LIMIT
from workers.hub.client import FetchOptions, Hub
from workers.hub.rate_limits import HubLimits, Stop
from workers.process.cancellation import Cancelled


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
