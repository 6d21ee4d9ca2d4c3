"""What downloads cost: memory, bytes for a repo that is refused, requests under a limit, bytes after a cut.

    python -m benchmarks.downloads [--megabytes N] [--workers N] [--rate R] [--seconds S] [--json]

A Hub on this machine counts what it is asked and what it sends. Workers are processes of their own.

- `peak_mb`: the most memory above idle (resident, maps of files included) while an adapter is screened, downloaded and
  verified; `verified_mb` of tensors were read.
- `wrong_base_bytes`: what the Hub sent of an adapter whose headers do not fit its base.
- `most_in_a_second`: the most requests that reached the Hub in any second while all workers asked at full speed.
- `resumed_bytes`: what was sent after a worker was killed (SIGKILL) in the middle of the file; `resent_bytes` of
  these had been sent before.
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
from workers.hub.client import Hub, Taking
from workers.hub.rate_limits import SharedLimits
from workers.hub.remote_headers import screen
from workers.process.file_locks import Hold

ROOT = Path(__file__).parents[1]
MODULE = "base_model.model.model.layers.{}.self_attn.q_proj"
LAYERS, RANK = 20, 4
NO_LIMIT = 2**40  # bytes


def adapter(nbytes: int) -> dict[str, bytes]:
    """A LoRA of so many bytes, that fits no base of `tests/support/pico.py`."""
    width = nbytes // (LAYERS * RANK * 4)
    tensors = {}
    for layer in range(LAYERS):
        tensors[f"{MODULE.format(layer)}.lora_A.weight"] = np.ones((RANK, width), np.float32)
        tensors[f"{MODULE.format(layer)}.lora_B.weight"] = np.ones((pico.HIDDEN, RANK), np.float32)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "base_model_name_or_path": pico.BASE_ID}
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(tensors)}


def make_hub(url: str, folder: Path, limits: SharedLimits | None = None) -> Hub:
    return Hub(url, None, folder, timeout=60, max_file_bytes=NO_LIMIT, max_repo_files=100, limits=limits)


# what runs in processes of its own


def fetch(url: str, folder: str, repo_id: str) -> None:
    hub = make_hub(url, Path(folder))
    hub.fetch_finetune(hub.resolve(repo_id))


def measure(url: str, folder: str) -> None:
    """Print the peak in bytes above idle; a small adapter first, so that code and buffers are there."""
    hub = make_hub(url, Path(folder))

    def take(repo_id: str) -> int:
        snapshot = hub.resolve(repo_id)
        with Hold() as hold:
            screen(hub, snapshot, Taking(hold=hold))
            return read_finetune(hub.fetch_finetune(snapshot, Taking(hold=hold))).nbytes

    take("o/small")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    idle = memory("VmHWM")
    verified = take("o/large")
    print(json.dumps([memory("VmHWM") - idle, verified]))


def memory(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def ask(url: str, redis_url: str, rate: str, seconds: str) -> None:
    hub = make_hub(url, Path(tempfile.gettempdir()), SharedLimits(redis_url, url, rate=float(rate), downloads=1))
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        hub.resolve("o/small")


def start(function: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.downloads", "--run", function, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


# what is measured


def peak(hub: ScriptedHub, folder: Path) -> dict[str, object]:
    output, _ = start("measure", hub.url, folder / "measured").communicate()
    most, verified = json.loads(output)
    return {"peak_mb": most / 1e6, "verified_mb": verified / 1e6}


def wrong_base(hub: ScriptedHub, folder: Path) -> dict[str, object]:
    pico.make_base(folder / "bases" / pico.BASE_ID)
    hub.sent.clear()
    client = make_hub(hub.url, folder / "refused")
    screened = screen(client, client.resolve("o/large"), Taking())
    refused = False
    try:
        BaseResolver(client, folder / "bases").resolve(declared=pico.BASE_ID, card_base=None, shapes=screened.shapes)
    except ShapeMismatch:
        refused = True
    return {"wrong_base_refused": refused, "wrong_base_bytes": sum(hub.sent.values())}


def paced(hub: ScriptedHub, workers: int, rate: float, seconds: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder)) as servers:
        hub.moments.clear()
        running = [start("ask", hub.url, servers.redis_url, rate, seconds) for _ in range(workers)]
        for each in running:
            each.communicate()
    busiest = most_in_a_second(hub.moments)
    return {"workers": workers, "rate": rate, "requests": len(hub.moments), "most_in_a_second": busiest}


def most_in_a_second(moments: Sequence[float]) -> int:
    return max(sum(first <= moment < first + 1 for moment in moments) for first in moments)


def resumed(hub: ScriptedHub, folder: Path) -> dict[str, object]:
    path = f"/o/large/resolve/{hub.sha}/adapter_model.safetensors"
    whole = hub._answers[path]
    half = len(whole.body) // 2
    hub.first(path, Answer(200, whole.headers, whole.body, stall=half))
    hub.sent.clear()
    partial = folder / "cut" / "models--o--large" / "blobs" / f"{hashlib.sha256(whole.body).hexdigest()}.incomplete"
    with start("fetch", hub.url, folder / "cut", "o/large") as worker:
        while worker.poll() is None and not (partial.exists() and partial.stat().st_size > 0.99 * half):
            time.sleep(0.05)
        worker.kill()
    before = hub.sent[path]
    with start("fetch", hub.url, folder / "cut", "o/large"):
        pass  # waits
    after = hub.sent[path] - before
    return {"cut_after_bytes": before, "resumed_bytes": after, "resent_bytes": before + after - len(whole.body)}


def run(megabytes: int, workers: int, rate: float, seconds: float) -> dict[str, object]:
    hub = ScriptedHub()
    try:
        hub.publishes("o/small", adapter(10**6))
        hub.publishes("o/large", adapter(megabytes * 10**6))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            return {
                "megabytes": megabytes,
                **peak(hub, folder),
                **wrong_base(hub, folder),
                **resumed(hub, folder),
                **paced(hub, workers, rate, seconds),
            }
    finally:
        hub.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100, help="size of the adapter")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=20, help="requests a second, all workers together")
    parser.add_argument("--seconds", type=float, default=10, help="how long the workers ask")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, *arguments = options.run
        {"fetch": fetch, "measure": measure, "ask": ask}[name](*arguments)
        return
    result = run(options.megabytes, options.workers, options.rate, options.seconds)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:20} {value:,.1f}" if isinstance(value, float) else f"{name:20} {value}")


if __name__ == "__main__":
    main()
