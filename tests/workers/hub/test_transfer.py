"""Broken downloads keep their partial file and resume."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalog.errors import DownloadStopped, HubRateLimited, HubUnavailable
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.waiting import LIMIT, wait_until
from workers.hub.client import FetchOptions, Hub
from workers.hub.transfer import MAX_RESUMPTIONS

ROOT = Path(__file__).parents[3]
WEIGHTS = "adapter_model.safetensors"
BODY = bytes(range(256)) * 4096  # 1 MiB
FILES = {"adapter_config.json": b"{}", WEIGHTS: BODY}
PATH = f"/o/n/resolve/{ScriptedHub.sha}/{WEIGHTS}"
FETCH = """
import sys
from pathlib import Path
from workers.hub.client import Hub
hub = Hub(sys.argv[1], None, Path(sys.argv[2]), timeout=60, max_file_bytes=10**9, max_repo_files=100)
hub.fetch_finetune(hub.resolve("o/n"))
"""


def make_hub(url: str, folder: Path, timeout: float = LIMIT) -> Hub:
    return Hub(url, None, folder, timeout=timeout, max_file_bytes=10**9, max_repo_files=100)


@pytest.fixture
def hub(scripted_hub: ScriptedHub, tmp_path: Path) -> Hub:
    return make_hub(scripted_hub.url, tmp_path)


def fetch(hub: Hub, options: FetchOptions | None = None) -> bytes:
    return (hub.fetch_finetune(hub.resolve("o/n"), options or FetchOptions()) / WEIGHTS).read_bytes()


def ranges(scripted_hub: ScriptedHub) -> list[str | None]:
    def range_header(headers: Mapping[str, str]) -> str | None:
        return {name.lower(): value for name, value in headers.items()}.get("range")

    return [range_header(headers) for _, _, headers in scripted_hub.download_requests(WEIGHTS)]


def break_once(scripted_hub: ScriptedHub, **cut: int) -> None:
    scripted_hub.publish("o/n", FILES)
    answer = scripted_hub._answers[PATH]
    scripted_hub.answer_first(PATH, Answer(200, answer.headers, BODY, **cut))


def test_broken_download_resumes(scripted_hub: ScriptedHub, hub: Hub):
    break_once(scripted_hub, cut_after=600_000)
    assert fetch(hub) == BODY
    assert ranges(scripted_hub) == [None, "bytes=600000-"]
    assert scripted_hub.bytes_sent[PATH] == len(BODY)


def test_stalled_download_resumes(scripted_hub: ScriptedHub, tmp_path: Path):
    break_once(scripted_hub, stall_after=600_000)
    assert fetch(make_hub(scripted_hub.url, tmp_path, timeout=3)) == BODY
    assert scripted_hub.bytes_sent[PATH] == len(BODY)


def test_download_fails_after_too_many_breaks_and_a_later_one_resumes(scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publish("o/n", FILES, cut_after=100_000)
    with pytest.raises(HubUnavailable, match="broke off"):
        fetch(hub)
    assert len(ranges(scripted_hub)) == MAX_RESUMPTIONS + 1
    assert fetch(hub) == BODY
    assert scripted_hub.bytes_sent[PATH] == len(BODY)


@pytest.mark.parametrize(
    ("fault", "error"), [(Answer(429, {"Retry-After": "1"}), HubRateLimited), (Answer(500), HubUnavailable)]
)
def test_error_status_after_a_break_keeps_the_partial_file(
    scripted_hub: ScriptedHub, hub: Hub, fault: Answer, error: type[Exception]
):
    break_once(scripted_hub, cut_after=600_000)
    scripted_hub.answer_first(PATH, fault)
    with pytest.raises(error):
        fetch(hub)
    assert fetch(hub) == BODY
    assert scripted_hub.bytes_sent[PATH] == len(BODY)


@pytest.mark.exhaustive
def test_killed_worker_leaves_its_partial_file_to_the_next(scripted_hub: ScriptedHub, tmp_path: Path):
    break_once(scripted_hub, stall_after=600_000)
    blob = tmp_path / "models--o--n" / "blobs" / f"{hashlib.sha256(BODY).hexdigest()}.incomplete"
    with subprocess.Popen([sys.executable, "-c", FETCH, scripted_hub.url, str(tmp_path)], cwd=ROOT) as worker:
        wait_until(
            lambda: worker.poll() is not None or (blob.exists() and blob.stat().st_size >= 590_000),
            "most of the file has arrived",
        )
        worker.kill()
    assert worker.returncode == -signal.SIGKILL
    assert fetch(make_hub(scripted_hub.url, tmp_path)) == BODY
    first = int(ranges(scripted_hub)[-1].removeprefix("bytes=").removesuffix("-"))
    assert 590_000 <= first <= 600_000


def test_stopped_download_resumes_later(scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publish("o/n", FILES)
    progress_bytes: list[int] = []
    options = FetchOptions(
        progress=lambda done, total: progress_bytes.append(done),
        stop=lambda: bool(progress_bytes and progress_bytes[-1] > 100_000),
    )
    with pytest.raises(DownloadStopped):
        fetch(hub, options)
    assert progress_bytes[-1] < len(BODY)
    assert fetch(hub) == BODY
    assert int(ranges(scripted_hub)[-1].removeprefix("bytes=").removesuffix("-")) >= progress_bytes[-1] - len(FILES)


def test_download_restarts_on_a_server_without_ranges(scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publish("o/n", FILES, supports_ranges=False, cut_after=600_000)
    with pytest.raises(HubUnavailable, match="broke off"):
        fetch(hub)
    scripted_hub.publish("o/n", FILES, supports_ranges=False)
    assert fetch(hub) == BODY


def test_damaged_file_is_discarded(scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publish("o/n", FILES)
    headers = scripted_hub._answers[PATH].headers
    scripted_hub.answer_first(PATH, Answer(200, headers, BODY[:-1] + b"?"))
    with pytest.raises(HubUnavailable, match="damaged"):
        fetch(hub)
    assert fetch(hub) == BODY


def test_response_with_another_range_is_rejected(scripted_hub: ScriptedHub, hub: Hub):
    break_once(scripted_hub, cut_after=600_000)
    scripted_hub.answer_first(PATH, Answer(206, {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"}, BODY))
    with pytest.raises(HubUnavailable, match="another range"):
        fetch(hub)
    assert fetch(hub) == BODY


def test_bytes_beyond_the_announced_size_are_not_read(scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publish("o/n", FILES)
    headers = scripted_hub._answers[PATH].headers
    scripted_hub.answer(PATH, Answer(200, headers, BODY * 20))
    with pytest.raises(HubUnavailable, match="than the 1,048,576 bytes"):
        fetch(hub)
    assert scripted_hub.bytes_sent[PATH] < 20 * len(BODY)


def test_two_threads_download_the_same_file_once(scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publish("o/n", FILES)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: fetch(hub), range(2))) == [BODY, BODY]
    assert scripted_hub.bytes_sent[PATH] == len(BODY)


def test_unchanged_file_of_an_earlier_commit_is_not_requested_again(scripted_hub: ScriptedHub, hub: Hub):
    scripted_hub.publish("o/n", FILES)
    fetch(hub)
    scripted_hub.publish("o/n", {**FILES, "README.md": b"new"}, sha="6" * 40)
    assert fetch(hub) == BODY
    assert [path for _, path, _ in scripted_hub.requests if "6" * 40 in path] == [f"/o/n/resolve/{'6' * 40}/README.md"]


def test_file_without_a_listed_hash_is_found_by_its_etag(scripted_hub: ScriptedHub, hub: Hub):
    for sha in ("5" * 40, "6" * 40):
        scripted_hub.publish("o/n", FILES, sha=sha)
        info = {"id": "o/n", "sha": sha, "siblings": [{"rfilename": name} for name in FILES]}
        scripted_hub.answer("/api/models/o/n", Answer(body=json.dumps(info).encode()))
        assert fetch(hub) == BODY
    assert scripted_hub.bytes_sent[PATH] == len(BODY)
    assert scripted_hub.bytes_sent[PATH.replace("5" * 40, "6" * 40)] == 0
