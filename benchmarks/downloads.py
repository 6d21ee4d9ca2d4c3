"""Measure downloads: memory, bytes of a refused repo, requests under a rate limit, and bytes after an interruption.

    python -m benchmarks.downloads [--megabytes N] [--workers N] [--rate R] [--seconds S] [--json]

A local Hub counts the requests and the bytes that it sends. Each worker is a separate process.

- `peak_mb`: peak memory above idle (resident, including mapped files) while an adapter is screened, downloaded and
  verified; `verified_mb` is the size of the tensors that were read.
- `wrong_base_bytes`: bytes that the Hub sent of an adapter whose headers do not match its base.
- `busiest_second`: the most requests that reached the Hub within one second while all workers ran at full speed.
- `resumed_bytes`: bytes sent after a worker was killed (SIGKILL) in the middle of a file; `resent_bytes` is the number
  of bytes that were sent twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from app.deployment.embedded import EmbeddedServers
from catalog.errors import ShapeMismatch
from tests.support import pico
from tests.support.hub_server import Answer, ScriptedHub
from workers.bases.resolver import BaseResolver
from workers.finetunes.reading import read_finetune
from workers.hub.client import FetchOptions, Hub
from workers.hub.rate_limits import SharedLimits
from workers.hub.remote_headers import screen
from workers.process.file_locks import FileLocks

ROOT = Path(__file__).parents[1]
MODULE = "base_model.model.model.layers.{}.self_attn.q_proj"
LAYERS, RANK = 20, 4
NO_LIMIT = 2**40  # bytes


def make_adapter(nbytes: int) -> dict[str, bytes]:
    """The files of a LoRA adapter of `nbytes` bytes that does not match any base of `tests/support/pico.py`."""
    width = nbytes // (LAYERS * RANK * 4)
    tensors = {}
    for layer in range(LAYERS):
        tensors[f"{MODULE.format(layer)}.lora_A.weight"] = np.ones((RANK, width), np.float32)
        tensors[f"{MODULE.format(layer)}.lora_B.weight"] = np.ones((pico.HIDDEN, RANK), np.float32)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "base_model_name_or_path": pico.BASE_ID}
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(tensors)}


def make_hub(url: str, folder: Path, limits: SharedLimits | None = None) -> Hub:
    return Hub(url, None, folder, timeout=60, max_file_bytes=NO_LIMIT, max_repo_files=100, limits=limits)


# functions that run in a subprocess


def fetch(url: str, folder: str, repo_id: str) -> None:
    hub = make_hub(url, Path(folder))
    hub.fetch_finetune(hub.resolve(repo_id))


def measure_peak(url: str, folder: str) -> None:
    """Print the peak memory above idle and the verified bytes. A small adapter first loads code and buffers."""
    hub = make_hub(url, Path(folder))

    def ingest(repo_id: str) -> int:
        snapshot = hub.resolve(repo_id)
        with FileLocks() as locks:
            screen(hub, snapshot, FetchOptions(locks=locks))
            return read_finetune(hub.fetch_finetune(snapshot, FetchOptions(locks=locks))).nbytes

    ingest("o/small")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    idle = memory("VmHWM")
    verified = ingest("o/large")
    print(json.dumps([memory("VmHWM") - idle, verified]))


def memory(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) * 1024


def send_requests(url: str, redis_url: str, rate: str, seconds: str) -> None:
    hub = make_hub(url, Path(tempfile.gettempdir()), SharedLimits(redis_url, url, rate=float(rate), downloads=1))
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        hub.resolve("o/small")


def start_process(function: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.downloads", "--run", function, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


# measurements


def peak_memory(hub: ScriptedHub, folder: Path) -> dict[str, object]:
    output, _ = start_process("measure_peak", hub.url, folder / "measured").communicate()
    peak, verified = json.loads(output)
    return {"peak_mb": peak / 1e6, "verified_mb": verified / 1e6}


def wrong_base(hub: ScriptedHub, folder: Path) -> dict[str, object]:
    pico.make_base(folder / "bases" / pico.BASE_ID)
    hub.bytes_sent.clear()
    client = make_hub(hub.url, folder / "refused")
    screened = screen(client, client.resolve("o/large"), FetchOptions())
    refused = False
    try:
        BaseResolver(client, folder / "bases").resolve({"declared": pico.BASE_ID}, shapes=screened.shapes)
    except ShapeMismatch:
        refused = True
    return {"wrong_base_refused": refused, "wrong_base_bytes": sum(hub.bytes_sent.values())}


def rate_limit(hub: ScriptedHub, workers: int, rate: float, seconds: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder)) as servers:
        hub.request_times.clear()
        arguments = (hub.url, servers.redis_url, rate, seconds)
        processes = [start_process("send_requests", *arguments) for _ in range(workers)]
        for process in processes:
            process.communicate()
    busiest = busiest_second(hub.request_times)
    return {"workers": workers, "rate": rate, "requests": len(hub.request_times), "busiest_second": busiest}


def busiest_second(times: Sequence[float]) -> int:
    """The largest number of requests within one second."""
    return max(sum(start <= moment < start + 1 for moment in times) for start in times)


def resume(hub: ScriptedHub, folder: Path) -> dict[str, object]:
    path = f"/o/large/resolve/{hub.sha}/adapter_model.safetensors"
    whole = hub._answers[path]
    half = len(whole.body) // 2
    hub.answer_first(path, Answer(200, whole.headers, whole.body, stall_after=half))
    hub.bytes_sent.clear()
    partial = folder / "cut" / "models--o--large" / "blobs" / f"{hashlib.sha256(whole.body).hexdigest()}.incomplete"
    with start_process("fetch", hub.url, folder / "cut", "o/large") as worker:
        while worker.poll() is None and not (partial.exists() and partial.stat().st_size > 0.99 * half):
            time.sleep(0.05)
        worker.kill()
    before = hub.bytes_sent[path]
    with start_process("fetch", hub.url, folder / "cut", "o/large"):
        pass  # wait for its end
    after = hub.bytes_sent[path] - before
    return {"cut_after_bytes": before, "resumed_bytes": after, "resent_bytes": before + after - len(whole.body)}


def run(megabytes: int, workers: int, rate: float, seconds: float) -> dict[str, object]:
    hub = ScriptedHub()
    try:
        hub.publish("o/small", make_adapter(10**6))
        hub.publish("o/large", make_adapter(megabytes * 10**6))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            return {
                "megabytes": megabytes,
                **peak_memory(hub, folder),
                **wrong_base(hub, folder),
                **resume(hub, folder),
                **rate_limit(hub, workers, rate, seconds),
            }
    finally:
        hub.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100, help="size of the adapter")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=20, help="requests per second of all workers together")
    parser.add_argument("--seconds", type=float, default=10, help="how long the workers send requests")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, *arguments = options.run
        {"fetch": fetch, "measure_peak": measure_peak, "send_requests": send_requests}[name](*arguments)
        return
    result = run(options.megabytes, options.workers, options.rate, options.seconds)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:20} {value:,.1f}" if isinstance(value, float) else f"{name:20} {value}")


if __name__ == "__main__":
    main()
