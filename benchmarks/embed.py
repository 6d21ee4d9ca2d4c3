"""Compare the encoder with the published procedure and with a bare forward pass: speed, agreement and memory.

    python -m benchmarks.embed --json

All contenders alternate in one process, and each value is the median over the rounds. Timings vary between runs, so
only ratios within one run are meaningful, and only on an otherwise idle machine. The time to read the adapter files is
included for every contender that reads them. Memory is measured in a separate process that holds a single base.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from catalog.settings import settings
from catalog.spaces.probes import ProbeSet, load_probes
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

POOL = Path(__file__).parents[1] / "examples" / "pool"
DEMO_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
BATCHES = (1, 4, 8)
DTYPES = ("float32", "bfloat16")
FEATURE = "delta_activations"
console = Console(stderr=True)
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Target:
    """A value with the limit that it has to meet."""

    name: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@app.command()
def main(
    base: Annotated[Path | None, typer.Option(help="Folder of the base. Default: that of the demo.")] = None,
    pool: Annotated[Path, typer.Option(help="Folder that contains the adapter folders.")] = POOL,
    probes: Annotated[Path | None, typer.Option(help="Probe set. Default: the shipped one.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    memory_adapters: Annotated[
        int, typer.Option(min=0, help="Number of adapters to encode for peak memory; 0 skips it.")
    ] = 1000,
    memory_child: Annotated[bool, typer.Option("--memory-child", hidden=True)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure seconds per adapter, cosines and peak memory."""
    _silence_libraries()
    base = base or settings().bases_dir / DEMO_BASE
    adapters = sorted(path.parent for path in pool.glob("*/adapter_config.json"))
    probe_set = load_probes(probes)
    if memory_child:
        print(json.dumps(measure_memory(base, adapters, probe_set, memory_adapters)))
        return
    report = measure_speed(base, adapters, probe_set, device, rounds)
    if memory_adapters and device == "cpu":
        report["memory"] = _measure_memory_in_subprocess(base, pool, probes, memory_adapters)
    targets = list(check_targets(report))
    report["targets"] = {
        target.name: {"value": target.value, "limit": target.limit, "met": target.met} for target in targets
    }
    if as_json:
        print(json.dumps(report))
    else:
        console.print_json(data=report)


def measure_speed(base: Path, adapters: Sequence[Path], probes: ProbeSet, device: str, rounds: int) -> dict[str, Any]:
    """Median seconds per adapter, and the smallest cosines."""
    published = Published(base, probes, device)
    encoders = {dtype: _encoder(base, probes, dtype, device) for dtype in DTYPES}
    contenders: dict[str, Callable[[], Any]] = {
        "published": lambda: np.stack([published.vector(adapter) for adapter in adapters]),
        "bare_forward": lambda: [published.bare_forward() for _ in adapters],
    }
    for dtype, encoder in encoders.items():
        for batch in BATCHES:
            contenders[f"{dtype}_batch_{batch}"] = _encode_run(encoder, adapters, batch)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results = {}
    for round_number in range(rounds + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            results[name] = run()
            _synchronize(device)
            if round_number:  # the first round is a warm-up
                seconds[name].append((time.perf_counter() - started) / len(adapters))
        console.print(f"round {round_number} of {rounds}")
    return {
        "adapters": len(adapters),
        "probes": {"name": probes.name, "sha256": probes.sha256, "tokens": published.tokens},
        "device": device,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "rounds": rounds,
        "seconds_per_adapter": {name: round(statistics.median(times), 5) for name, times in seconds.items()},
        "speedup_over_published": _ratios(seconds, "published", lambda time, reference: reference / time),
        "time_relative_to_bare_forward": _ratios(seconds, "bare_forward", lambda time, reference: time / reference),
        "smallest_cosine": {
            "float32_to_published": _smallest_cosine(results["float32_batch_8"], results["published"]),
            "bfloat16_to_float32": _smallest_cosine(results["bfloat16_batch_8"], results["float32_batch_8"]),
        },
    }


def check_targets(report: dict[str, Any]) -> list[Target]:
    """The targets of a report; speed is that of the best batch size."""
    speedup, bare, cosine = (
        report[name] for name in ("speedup_over_published", "time_relative_to_bare_forward", "smallest_cosine")
    )
    float32_bare = min(bare[f"float32_batch_{batch}"] for batch in BATCHES)
    targets = [
        Target("float32_speedup_over_published", max(speedup[f"float32_batch_{batch}"] for batch in BATCHES), 2.2),
        Target("float32_relative_to_bare_forward", float32_bare, 1.10, at_most=True),
        Target("float32_cosine", cosine["float32_to_published"], 0.99999),
        Target("bfloat16_speedup_over_published", max(speedup[f"bfloat16_batch_{batch}"] for batch in BATCHES), 6.0),
        Target("bfloat16_cosine", cosine["bfloat16_to_float32"], 0.9995),
    ]
    if memory := report.get("memory"):
        limit = max(0.2 * memory["base_bytes"], 300e6)
        targets.append(Target("peak_bytes_above_base", memory["peak_above_base"], limit, at_most=True))
    return targets


class Published:
    """The published procedure (arXiv 2509.04442, released code): one prompt at a time through the complete causal LM.

    Unlike the released code, it unloads each adapter; otherwise the vectors of all later adapters would be wrong.
    """

    def __init__(self, base: Path, probes: ProbeSet, device: str) -> None:
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device).eval()
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
        self._rows = [
            tokenizer(text, truncation=True, max_length=256, return_tensors="pt").to(device) for text in probes.prompts
        ]
        self._batch = _padded([row["input_ids"][0] for row in self._rows])
        self._base = self._mean_activation(self._model)

    @property
    def tokens(self) -> int:
        return sum(row["input_ids"].numel() for row in self._rows)

    def vector(self, adapter: Path) -> np.ndarray:
        tuned = PeftModel.from_pretrained(self._model, str(adapter)).eval()
        activation = self._mean_activation(tuned)
        tuned.unload()
        return (activation - self._base).cpu().numpy()

    def bare_forward(self) -> None:
        """Run the base without its output head on all probes in one padded batch."""
        with torch.inference_mode():
            self._model.base_model(**self._batch, use_cache=False)

    @torch.inference_mode()
    def _mean_activation(self, model: torch.nn.Module) -> torch.Tensor:
        states = [model(**row, output_hidden_states=True).hidden_states[-1][0, -1] for row in self._rows]
        return torch.stack(states).mean(dim=0)


def measure_memory(base: Path, adapters: Sequence[Path], probes: ProbeSet, count: int) -> dict[str, Any]:
    """Peak bytes above the memory of the loaded base while `count` adapters are encoded in batches of eight."""
    encoder = _encoder(base, probes, "float32", "cpu")
    before, peaks = _resident_bytes(), []
    queue = [adapters[number % len(adapters)] for number in range(count)]
    tenth = max(8, count // 10)
    for start in range(0, count, tenth):
        with _peak() as peak:
            _encode_run(encoder, queue[start : start + tenth], 8)()
        peaks.append(peak[0] - before)
    return {
        "adapters": count,
        "base_bytes": encoder.base.nbytes,
        "peak_above_base": max(peaks),
        "peak_above_base_by_tenths": peaks,
    }


def _measure_memory_in_subprocess(base: Path, pool: Path, probes: Path | None, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.embed", "--base", base, "--pool", pool, "--memory-adapters", count]
    command += ["--memory-child", *(["--probes", probes] if probes else [])]
    return json.loads(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout)


def _silence_libraries() -> None:
    """Disable the progress bars and warnings of the libraries."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.simplefilter("ignore")


def _encoder(base: Path, probes: ProbeSet, dtype: str, device: str) -> Encoder:
    encoder = Encoder(ResidentBase.load(base, base.name, "benchmark", dtype=dtype, device=device), probes, [FEATURE])
    encoder.measure_base()
    return encoder


def _encode_run(encoder: Encoder, adapters: Sequence[Path], batch: int) -> Callable[[], np.ndarray]:
    def run() -> np.ndarray:
        results = []
        for start in range(0, len(adapters), batch):
            results += encoder.encode([read_finetune(adapter) for adapter in adapters[start : start + batch]])
        return np.stack([result.vectors[FEATURE] for result in results if isinstance(result, Encoding)])

    return run


def _padded(rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), "attention_mask": mask}


def _ratios(seconds: dict[str, list[float]], to: str, ratio: Callable[[float, float], float]) -> dict[str, float]:
    """The median over the rounds of the ratio of each contender to the contender `to`."""
    return {
        name: round(statistics.median(itertools.starmap(ratio, zip(times, seconds[to], strict=True))), 3)
        for name, times in seconds.items()
    }


def _smallest_cosine(vectors: np.ndarray, expected: np.ndarray) -> float:
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    return round(float(((vectors * expected).sum(axis=1) / norms).min()), 7)


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _peak(interval: float = 0.005) -> Iterator[list[int]]:
    """Yield a list whose only entry is updated to the peak number of resident bytes."""
    peak, done = [_resident_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(interval):
            peak[0] = max(peak[0], _resident_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    app()
