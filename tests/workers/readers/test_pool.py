"""Readers that hang, take memory, crash or answer nonsense, and the requests after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from catalog.errors import (
    CatalogError,
    CorruptWeights,
    HubUnavailable,
    InvalidAdapterConfig,
    ReaderCrashed,
    ReaderEnded,
    ReaderOutOfMemory,
    ReaderTimedOut,
    Unavailable,
)
from tests.support import pico
from tests.support.misbehaving_reader import COMMAND
from tests.support.waiting import wait_until
from workers.finetunes.reading import read_finetune
from workers.finetunes.repo_files import Choice
from workers.process.cancellation import Cancelled, cancel_scope
from workers.readers.pool import ReaderPool

NO_LIMIT = 10**9
MEMORY = 2**27


@pytest.fixture(scope="module")
def pool() -> Iterator[ReaderPool]:
    pool = ReaderPool(1, seconds=1.5, memory=MEMORY, command=COMMAND)
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture(scope="module")
def patient() -> Iterator[ReaderPool]:
    """A pool whose deadline is far away."""
    pool = ReaderPool(1, seconds=600, memory=MEMORY, command=COMMAND)
    yield pool
    pool.stop()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico.make_adapter(tmp_path_factory.mktemp("adapters") / "one")


ENDS: dict[str, type[ReaderEnded]] = {
    "hang": ReaderTimedOut,
    "hang_in_one_call": ReaderTimedOut,
    "take_memory": ReaderOutOfMemory,
    "take_memory_at_once": ReaderOutOfMemory,
    "abort": ReaderCrashed,
    "segfault": ReaderCrashed,
    "exit": ReaderCrashed,
    "panic": ReaderCrashed,
}


@pytest.mark.parametrize(("operation", "error"), ENDS.items(), ids=ENDS)
def test_ended_reader_is_replaced_and_its_error_names_the_repo(
    pool: ReaderPool, adapter: Path, operation: str, error: type[ReaderEnded]
):
    before = pool.run("some/repo", "pid", {})
    with pytest.raises(error, match="evil/repo") as raised:
        pool.run("evil/repo", operation, {})
    assert (raised.value.repo, raised.value.transient) == ("evil/repo", False)
    assert pool.read_finetune("good/repo", adapter, max_file_bytes=NO_LIMIT).kind == "lora"
    assert pool.run("some/repo", "pid", {}) != before
    assert not Path(f"/proc/{before}").exists()


def test_nonsense_from_a_reader_is_its_repos_error(pool: ReaderPool, adapter: Path, monkeypatch: pytest.MonkeyPatch):
    run = pool.run
    monkeypatch.setattr(pool, "run", lambda repo, *_, **__: run(repo, "answer_deeply", {}))
    with pytest.raises(ReaderCrashed, match="nonsense") as raised:
        pool.read_finetune("evil/repo", adapter, max_file_bytes=NO_LIMIT)
    assert raised.value.repo == "evil/repo"


def test_reader_has_no_secrets(monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_TOKEN", "ADMIN_API_KEY", "DATABASE_URL", "REDIS_URL", "DELTADEX_TOKEN_KEY"):
        monkeypatch.setenv(name, "secret-of-the-worker")
    pool = ReaderPool(1, command=COMMAND)
    try:
        environment = pool.run("some/repo", "environment", {})
        of_the_kernel = b"".join(Path(f"/proc/{pid}/environ").read_bytes() for pid in pool.pids)
    finally:
        pool.stop()
    assert "secret-of-the-worker" not in environment.values()
    assert b"secret-of-the-worker" not in of_the_kernel
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_cancelled_request_ends_its_reader(patient: ReaderPool):
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    with pytest.raises(Cancelled), cancel_scope(cancelled.is_set):
        patient.run("some/repo", "hang", {})
    assert patient.run("some/repo", "pid", {})


def test_request_waits_for_a_free_reader(patient: ReaderPool):
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(patient.run("some/repo", "pid", {}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 8
    assert len(set(pids)) == 1


def test_stopped_pool_ends_its_readers_and_refuses_requests(adapter: Path):
    pool = ReaderPool(1, command=COMMAND)
    running: list[BaseException] = []

    def hang() -> None:
        try:
            pool.run("good/repo", "hang", {})
        except BaseException as error:
            running.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    template, reader = wait_until(lambda: pool.pids[1:] and pool.pids, "a reader hangs")
    pool.stop()
    thread.join()
    assert [type(error) for error in running] == [Unavailable]  # the repo is not to blame
    assert not any(Path(f"/proc/{pid}").exists() for pid in (template, reader))
    with pytest.raises(Unavailable):
        pool.read_finetune("good/repo", adapter, max_file_bytes=NO_LIMIT)


WORKER = """
import sys, time
from workers.readers.pool import ReaderPool
pool = ReaderPool(1)
pool.run("some/repo", "bases_in_card", {"path": "README.md"})
print(*pool.pids, flush=True)
time.sleep(600)
"""


def test_readers_end_with_their_worker():
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True) as worker:
        pids = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(pids) == 2
        worker.kill()
    wait_until(lambda: not any(is_running(pid) for pid in pids), "the readers have ended")


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_killed_template_is_started_again(patient: ReaderPool, adapter: Path):
    patient.run("some/repo", "pid", {})
    os.kill(patient.pids[0], signal.SIGKILL)
    with pytest.raises(ReaderCrashed):
        patient.run("evil/repo", "abort", {})
    assert patient.read_finetune("good/repo", adapter, max_file_bytes=NO_LIMIT).kind == "lora"


def test_failed_start_is_no_fault_of_a_repo():
    pool = ReaderPool(1, command=("/bin/false",))
    with pytest.raises(Unavailable):
        pool.run("some/repo", "pid", {})
    pool.stop()


def test_finetune_read_by_a_reader_is_the_same(pool: ReaderPool, adapter: Path):
    (adapter / "README.md").write_text("---\nbase_model: a/b\n---\nHelps with contracts.")
    expected = read_finetune(adapter)
    finetune = pool.read_finetune("good/repo", adapter, max_file_bytes=NO_LIMIT)
    assert (finetune.config, finetune.shapes, finetune.card_bases, finetune.card, finetune.notes) == (
        expected.config,
        expected.shapes,
        ("a/b",),
        "Helps with contracts.",
        expected.notes,
    )
    assert all(finetune.tensors[name].equal(tensor) for name, tensor in expected.tensors.items())


def test_full_model_read_by_a_reader_is_the_same(pool: ReaderPool, tmp_path: Path):
    folder = pico.make_base(tmp_path / "full")
    expected = read_finetune(folder)
    finetune = pool.read_finetune("good/repo", folder, max_file_bytes=NO_LIMIT)
    assert (finetune.kind, finetune.config, finetune.shapes) == ("full", expected.config, expected.shapes)


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("adapter_config.json", b"{" * 10, InvalidAdapterConfig),
        ("adapter_config.json", b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", InvalidAdapterConfig),
        ("adapter_model.safetensors", b"\xff" * 100, CorruptWeights),
    ],
)
def test_errors_of_files_are_those_of_the_catalog(
    pool: ReaderPool, tmp_path: Path, file: str, content: bytes, error: type[CatalogError]
):
    folder = pico.make_adapter(tmp_path / "bad")
    (folder / file).write_bytes(content)
    with pytest.raises(error):
        read_finetune(folder)
    before = pool.run("some/repo", "pid", {})
    with pytest.raises(error):
        pool.read_finetune("bad/repo", folder, max_file_bytes=NO_LIMIT)
    assert pool.run("some/repo", "pid", {}) == before


def raw_header(adapter: Path) -> tuple[bytes, int]:
    content = (adapter / "adapter_model.safetensors").read_bytes()
    return content[8 : 8 + int.from_bytes(content[:8], "little")], len(content)


CHOICE = Choice("", ("adapter_config.json", "adapter_model.safetensors"))


def test_reader_screens_headers_that_the_worker_fetches(pool: ReaderPool, adapter: Path):
    finetune = pool.screen_finetune("good/repo", adapter, CHOICE, lambda path: raw_header(adapter))
    assert finetune.shapes == read_finetune(adapter).shapes
    assert all(tensor.is_meta for tensor in finetune.tensors.values())


def test_error_of_the_hub_passes_and_the_reader_stays(pool: ReaderPool, adapter: Path):
    def fetch(path: str) -> tuple[bytes, int]:
        raise HubUnavailable("The Hub does not answer.")

    before = pool.run("some/repo", "pid", {})
    with pytest.raises(HubUnavailable):
        pool.screen_finetune("good/repo", adapter, CHOICE, fetch)
    assert pool.run("some/repo", "pid", {}) == before


def test_shapes_of_a_base_are_read_once(pool: ReaderPool, tmp_path: Path):
    folder = pico.make_base(tmp_path / "base")
    shapes = pool.weight_shapes("o/base", folder)
    assert pool.weight_shapes("o/base", folder) is shapes
    os.utime(folder / "config.json", (1, 1))
    assert pool.weight_shapes("o/base", folder) is not shapes


def test_tokenizer_in_a_reader_gives_the_same_tokens(pool: ReaderPool, tmp_path: Path):
    files = pool.read_base("o/base", pico.make_base(tmp_path / "base"))
    expected, tokenizer = pico.byte_tokenizer(), files.tokenizer
    texts = ["Hello, world.", "Zwölf Boxkämpfer 🥊", ""]
    assert tokenizer(texts)["input_ids"] == expected(texts)["input_ids"]
    assert tokenizer("Hello.", add_special_tokens=False)["input_ids"] == expected("Hello.")["input_ids"]
    assert tokenizer("abc" * 99, truncation=True, max_length=5)["input_ids"] == expected("abc" * 99)["input_ids"][:5]
    assert tokenizer.batch_decode([[5], [5, 6]]) == expected.batch_decode([[5], [5, 6]])
    assert (len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id) == (len(expected), 1, 1)
    assert files.config["model_type"] == "llama"
