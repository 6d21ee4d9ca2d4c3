"""What the pinned `huggingface_hub` cannot do, and `workers/hub/transfer.py`, `file_fetcher.py` and `download_cache.py`
therefore do: the same scenario with its `hf_hub_download` and with ours.

A test that fails after an upgrade says which of that code may go.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir
from huggingface_hub.utils import WeakFileLock, tqdm

from catalog.errors import DiskFull, HubUnavailable, UnsafePath
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.waiting import LIMIT
from workers.hub.client import FetchOptions, Hub
from workers.hub.download_cache import evict
from workers.process.cancellation import Cancelled
from workers.process.file_locks import FileLocks

REPO = "o/n"
WEIGHTS = "adapter_model.safetensors"
BODY = bytes(range(256)) * 4096  # 1 MiB
ETAG = hashlib.sha256(BODY).hexdigest()
PATH = f"/{REPO}/resolve/{ScriptedHub.sha}/{WEIGHTS}"
HEADERS = {"X-Repo-Commit": ScriptedHub.sha, "ETag": f'"{ETAG}"'}


@pytest.fixture
def hub(scripted_hub: ScriptedHub, tmp_path: Path) -> Hub:
    scripted_hub.publish(REPO, {"adapter_config.json": b"{}", WEIGHTS: BODY})
    return Hub(scripted_hub.url, None, tmp_path / "ours", timeout=LIMIT, max_file_bytes=10**9, max_repo_files=100)


@pytest.fixture
def theirs(hub: Hub, scripted_hub: ScriptedHub, tmp_path: Path) -> Callable[..., Path]:
    """The pinned client's download of the weights, through the same session as ours."""

    def download(**options: Any) -> Path:
        return Path(
            hf_hub_download(
                REPO,
                WEIGHTS,
                revision=ScriptedHub.sha,
                cache_dir=tmp_path / "theirs",
                endpoint=scripted_hub.url,
                token=False,
                **options,
            )
        )

    return download


def ours(hub: Hub, options: FetchOptions | None = None) -> Path:
    return hub.fetch_finetune(hub.resolve(REPO), options or FetchOptions()) / WEIGHTS


def cannot(observed: bool, deed: str, code: str) -> None:
    assert observed, f"The pinned huggingface_hub can now {deed}: {code} may go."


def ranges(scripted_hub: ScriptedHub) -> list[str | None]:
    """The `Range` header of each GET of the weights so far; forgets them."""
    headers = [headers for method, _, headers in scripted_hub.download_requests(WEIGHTS) if method == "GET"]
    scripted_hub.requests.clear()
    return [{name.lower(): value for name, value in header.items()}.get("range") for header in headers]


def test_client_starts_over_after_a_broken_connection(scripted_hub: ScriptedHub, hub: Hub, theirs):
    whole = Answer(200, HEADERS, BODY)
    scripted_hub.answer_first(PATH, whole, Answer(200, HEADERS, BODY, cut_after=600_000))  # to HEAD, then to GET
    assert theirs().read_bytes() == BODY
    cannot(ranges(scripted_hub) == [None, None], "resume within ten megabytes", "transfer.resume")

    scripted_hub.answer_first(PATH, Answer(200, HEADERS, BODY, cut_after=600_000))
    assert ours(hub).read_bytes() == BODY
    assert ranges(scripted_hub) == [None, "bytes=600000-"]


def test_client_keeps_nothing_of_a_stopped_download(scripted_hub: ScriptedHub, hub: Hub, theirs, tmp_path: Path):
    def stop(done: int, total: int) -> None:
        if done > 100_000:
            raise Cancelled

    class StoppingBar(tqdm):
        def update(self, n: float | None = 1) -> None:
            stop(int(n or 0), len(BODY))

    with pytest.raises(Cancelled):
        theirs(tqdm_class=StoppingBar)
    cannot(not any((tmp_path / "theirs").rglob("*.incomplete")), "keep a partial file", "file_fetcher._partial")
    ranges(scripted_hub)
    assert theirs().read_bytes() == BODY
    cannot(ranges(scripted_hub) == [None], "resume in another process", "file_fetcher._partial")

    with pytest.raises(Cancelled):
        ours(hub, FetchOptions(progress=stop))
    ranges(scripted_hub)
    assert ours(hub).read_bytes() == BODY
    (resumed,) = ranges(scripted_hub)
    assert resumed is not None
    assert int(resumed.removeprefix("bytes=").removesuffix("-")) > 0


def test_client_reports_progress_once_in_ten_megabytes(hub: Hub, theirs):
    reports: list[float] = []

    class RecordingBar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            reports.append(n or 0)
            return super().update(n)

    theirs(tqdm_class=RecordingBar)
    cannot(reports == [len(BODY)], "be stopped between blocks", "transfer._copy")

    reports.clear()
    ours(hub, FetchOptions(progress=lambda done, total: reports.append(done)))
    assert len(reports) > 2


def test_client_does_not_verify_the_hash(scripted_hub: ScriptedHub, hub: Hub, theirs):
    damaged = BODY[:-1] + b"?"
    scripted_hub.answer(PATH, Answer(200, HEADERS, damaged))
    cannot(theirs().read_bytes() == damaged, "verify a file's hash", "transfer.verify")

    with pytest.raises(HubUnavailable, match="damaged"):
        ours(hub)


def test_client_reads_more_bytes_than_announced(scripted_hub: ScriptedHub, hub: Hub, theirs):
    scripted_hub.answer(PATH, Answer(200, {**HEADERS, "X-Linked-Size": str(len(BODY))}, BODY * 20))
    with pytest.raises(OSError, match="Consistency check failed"):
        theirs()
    cannot(scripted_hub.bytes_sent[PATH] == 20 * len(BODY), "stop at the announced size", "the count in transfer._copy")

    scripted_hub.bytes_sent.clear()
    with pytest.raises(HubUnavailable, match="more of"):
        ours(hub)
    assert scripted_hub.bytes_sent[PATH] < 20 * len(BODY)


def test_client_writes_outside_its_cache_when_the_etag_says_so(
    scripted_hub: ScriptedHub, hub: Hub, theirs, tmp_path: Path
):
    etag = "../../../outside"  # from theirs/models--o--n/blobs
    scripted_hub.publish(REPO, {"adapter_config.json": b"{}"}, info={"siblings": [{"rfilename": WEIGHTS}]})
    scripted_hub.answer(PATH, Answer(200, {**HEADERS, "ETag": f'"{etag}"'}, BODY))
    theirs()
    cannot((tmp_path / "outside").read_bytes() == BODY, "refuse such an ETag", "the check in DownloadCache.blob")

    (tmp_path / "outside").unlink()
    snapshot = hub.resolve(REPO)
    with pytest.raises(UnsafePath):
        hub.first_bytes(snapshot, WEIGHTS, 8)
    assert not (tmp_path / "outside").exists()


def test_client_only_warns_when_the_disk_is_too_small(
    hub: Hub, theirs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1, used=1, free=len(BODY) - 1))
    with pytest.warns(UserWarning, match="Not enough free disk space"):
        path = theirs()
    cannot(path.read_bytes() == BODY, "refuse a file that does not fit", "DownloadCache.evict_for")

    with pytest.raises(DiskFull):
        ours(hub)


def test_client_deletes_files_that_are_in_use(hub: Hub, theirs, tmp_path: Path):
    path, cache = theirs(), tmp_path / "theirs"
    with WeakFileLock(cache / ".locks" / "models--o--n" / f"{ETAG}.lock"):
        scan_cache_dir(cache).delete_revisions(ScriptedHub.sha).execute()
    cannot(not path.exists(), "evict only files that are not in use", "download_cache.evict")

    with FileLocks() as locks:
        path = ours(hub, FetchOptions(locks=locks))
        assert evict(tmp_path / "ours", 10**9) == 0
    assert path.read_bytes() == BODY
