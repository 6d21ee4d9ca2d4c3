"""The hostile repos of `benchmarks.hostile`: on a local Hub, each kind with a way to hurt a worker.

They are the corpus of folders that the tests have (`tests.support.bad_inputs`), and what only a Hub can serve: lies
about sizes and hashes, slow and broken answers, tricks in paths, and bases that panic, do not fit or go in circles.
Every one of them must end with an error that says what the matter is.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support import bad_inputs, hostile, pico
from tests.support.hub_server import Answer, ScriptedHub

OWNER, BASE_OWNER = "hostile", "evil"
UNKNOWN_WIDTH = 48
HARD_PATTERN = r"((\w|\s)+)+\d$"  # makes the tokenizer's regex engine give up and panic
CONFIG, WEIGHTS = bad_inputs.CONFIG, bad_inputs.WEIGHTS
MAX_FILE_BYTES = 64 * 2**20  # the setting of the workers
# folders that a Hub cannot serve, or that need a lower limit than the benchmark's
NOT_SERVED = ("linked_config", "linked_weights", "pipe_in_place_of_weights", "file_over_the_limit")
TRICKLING = "trickling weights"  # the kind whose weights the Hub sends a byte at a time

Files = dict[str, bytes]


@dataclass(frozen=True)
class Place:
    """Where a hostile repo is published: its name on a Hub, and a folder of its own for what it is made of."""

    hub: ScriptedHub
    repo_id: str
    folder: Path
    seed: int

    @property
    def base_id(self) -> str:
        """The name of a hostile base of its own."""
        return f"{BASE_OWNER}/{self.repo_id.split('/')[1]}"

    def adapter(self, hidden: int = pico.HIDDEN, **settings: Any) -> Files:
        """The files of a good adapter, with other settings in its config. With another `hidden` it fits no base, so
        that no base is found by its shapes.
        """
        files = read(pico.make_adapter(self.folder / "adapter", seed=self.seed, hidden=hidden))
        return {**files, CONFIG: json.dumps(json.loads(files[CONFIG]) | settings).encode()}

    def publish(self, files: Files, **options: Any) -> None:
        self.hub.publish(self.repo_id, files, **options)

    def publish_on_base(self, files: Files | None, hidden: int = pico.HIDDEN) -> None:
        """Publish a good adapter of a hostile base; None: a base that is not on the Hub."""
        self.publish(self.adapter(hidden, base_model_name_or_path=self.base_id))
        if files is not None:
            self.hub.publish(self.base_id, files)

    def base(self) -> Files:
        return read(pico.make_base(self.folder / "base", seed=self.seed))


def read(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def changed(content: bytes, **settings: Any) -> bytes:
    return json.dumps(json.loads(content) | settings).encode()


# bases


def base_with_tokenizer(place: Place, **settings: Any) -> None:
    files = place.base()
    place.publish_on_base({**files, "tokenizer.json": changed(files["tokenizer.json"], **settings)})


def tokenizer_that_panics(place: Place) -> None:
    split = {"type": "Split", "pattern": {"Regex": HARD_PATTERN}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    base_with_tokenizer(place, pre_tokenizer={"type": "Sequence", "pretokenizers": [split, byte_level]})


def tokenizer_that_grows(place: Place) -> None:
    """A tokenizer that doubles each letter forty times."""
    double = [{"type": "Replace", "pattern": {"Regex": "(?i)[a-z ]"}, "content": "aa"}] * 40
    base_with_tokenizer(place, normalizer={"type": "Sequence", "normalizers": double})


def tokenizer_of_a_million_words(place: Place) -> None:
    model = {"type": "WordLevel", "vocab": {f"w{n}": n for n in range(1_000_000)}, "unk_token": "<no such word>"}
    base_with_tokenizer(place, model=model)


def tokenizer_of_brackets(place: Place) -> None:
    place.publish_on_base({**place.base(), "tokenizer.json": b"[" * 1_000_000})


def base_with_config(place: Place, **settings: Any) -> None:
    files = place.base()
    place.publish_on_base({**files, "config.json": changed(files["config.json"], **settings)})


def base_of_brackets(place: Place) -> None:
    place.publish_on_base({**place.base(), "config.json": b"[" * 1_000_000}, UNKNOWN_WIDTH)


def base_with_weights(place: Place, change: Callable[[bytes], bytes]) -> None:
    files = place.base()
    place.publish_on_base({**files, "model.safetensors": change(files["model.safetensors"])}, UNKNOWN_WIDTH)


def base_of_pickles(place: Place) -> None:
    files = place.base()
    place.publish_on_base({**files, "pytorch_model.bin": files.pop("model.safetensors")}, UNKNOWN_WIDTH)


def base_without(place: Place, name: str) -> None:
    files = {path: content for path, content in place.base().items() if path != name}
    place.publish_on_base(files, pico.HIDDEN if name == "tokenizer.json" else UNKNOWN_WIDTH)


def base_of_other_sizes(place: Place) -> None:
    files = place.base()
    path = place.folder / "narrow.safetensors"
    weights = load_file(place.folder / "base" / "model.safetensors")
    save_file({name: tensor[..., :8].contiguous() for name, tensor in weights.items()}, path)
    place.publish_on_base({**files, "model.safetensors": path.read_bytes()}, UNKNOWN_WIDTH)


def base_that_is_an_adapter(place: Place) -> None:
    """Two adapters, each of which names the other as its base."""
    place.publish_on_base(place.adapter(UNKNOWN_WIDTH, base_model_name_or_path=place.repo_id), UNKNOWN_WIDTH)


def base_that_is_the_repo_itself(place: Place) -> None:
    place.publish(place.adapter(UNKNOWN_WIDTH, base_model_name_or_path=place.repo_id))


def base_of_a_terabyte(place: Place) -> None:
    files = place.base()
    place.publish_on_base(files, UNKNOWN_WIDTH)
    sizes = {path: len(content) for path, content in files.items()} | {"model.safetensors": 2**40}
    place.hub.script_listing(place.base_id, sizes)


def refused_base(place: Place, status: int, code: str) -> None:
    place.publish_on_base(None, UNKNOWN_WIDTH)
    place.hub.answer(f"/api/models/{place.base_id}", Answer(status, {"X-Error-Code": code}))


# answers of the Hub


def refused(place: Place, answer: Answer) -> None:
    place.hub.answer(f"/api/models/{place.repo_id}", answer)


def listing_of(place: Place, body: bytes) -> None:
    refused(place, Answer(body=body))


def weights_answer(place: Place, answer: Callable[[bytes], Answer]) -> None:
    """Publish a good adapter, and give another answer to requests for its weights."""
    files = place.adapter()
    place.publish(files)
    place.hub.answer(f"/{place.repo_id}/resolve/{place.hub.sha}/{WEIGHTS}", answer(files[WEIGHTS]))


def too_many_requests(place: Place) -> None:
    """Weights that are refused for a while, which costs a job no attempt, and then for good."""
    weights_answer(place, lambda _: Answer(403, {"X-Error-Code": "GatedRepo"}))
    prefix = f"/{place.repo_id}/resolve/{place.hub.sha}/{WEIGHTS}"
    place.hub.answer_first(prefix, *[Answer(429, {"Retry-After": "1"})] * 3)


def options(place: Place, **fields: Any) -> None:
    place.publish(place.adapter(), **fields)


def other_bytes(place: Place) -> None:
    """Weights of another adapter than the listing and the ETag declare."""
    files = place.adapter()
    place.publish(files)
    body = bytearray(files[WEIGHTS])
    body[-400:] = bytes(400)
    place.hub.answer(
        f"/{place.repo_id}/resolve/{place.hub.sha}/{WEIGHTS}",
        Answer(200, {"X-Repo-Commit": place.hub.sha, "ETag": f'"{"a" * 64}"'}, bytes(body)),
    )


def listed_with(place: Place, files: Mapping[str, int]) -> None:
    place.hub.script_listing(place.repo_id, {CONFIG: 10, WEIGHTS: 10, **files})


def larger_than_listed(place: Place) -> None:
    """Weights that the listing declares with a hundred bytes, and of which a hundred megabytes come."""
    files = place.adapter()
    place.publish(files)
    place.hub.script_listing(place.repo_id, {CONFIG: len(files[CONFIG]), WEIGHTS: 100})
    place.hub.serve_file(place.repo_id, WEIGHTS, bytes(100 * 2**20), "b" * 64)


def gzip_bomb(place: Place, path: str | None) -> None:
    """A file (None: the listing) of which a megabyte comes and a gigabyte is unpacked."""
    place.publish(place.adapter())
    answer = Answer(200, {"X-Repo-Commit": place.hub.sha, "Content-Encoding": "gzip"}, _gzipped_gigabyte())
    prefix = f"/{place.repo_id}/resolve/{place.hub.sha}/{path}" if path else f"/api/models/{place.repo_id}"
    place.hub.answer(prefix, answer)


def _gzipped_gigabyte() -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        for _ in range(1024):
            stream.write(bytes(2**20))
    return buffer.getvalue()


def redirected(place: Place, target: str) -> None:
    place.publish(place.adapter())
    target = target.format(repo_id=place.repo_id, sha=place.hub.sha)
    place.hub.answer(f"/{place.repo_id}/resolve/{place.hub.sha}/{CONFIG}", Answer(302, {"Location": target}))


# files of a repo


def zip_bomb(place: Place) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(256 * 2**20))
    place.publish({**place.adapter(), WEIGHTS: buffer.getvalue()})


def thousands_of_tensors(place: Place) -> None:
    path = place.folder / "many.safetensors"
    names = (f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_A.weight" for n in range(30_000))
    save_file({name: torch.zeros(1, 1) for name in names}, path)
    place.publish({**place.adapter(), WEIGHTS: path.read_bytes()})


def huge_header(place: Place) -> None:
    """A header of forty megabytes of one tensor's name."""
    head = json.dumps({"a" * 40 * 2**20: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    place.publish({**place.adapter(), WEIGHTS: len(head).to_bytes(8, "little") + head + bytes(4)})


def sparse_weights(place: Place) -> None:
    """Sixty megabytes of zeros in place of weights."""
    place.publish({**place.adapter(), WEIGHTS: bytes(60 * 2**20)})


def bidirectional_names(place: Place) -> None:
    path = place.folder / "unicode.safetensors"
    save_file({f"base_model.model.\u202e{n}\u0000\U0001f600.lora_A.weight": torch.zeros(4, 4) for n in range(50)}, path)
    place.publish({**place.adapter(), WEIGHTS: path.read_bytes()})


def full_model(place: Place, **settings: Any) -> None:
    files = place.base()
    card = f"---\nbase_model: {pico.BASE_ID}\n---\n".encode()
    place.publish({**files, "config.json": changed(files["config.json"], **settings), "README.md": card})


def card(place: Place, text: str) -> None:
    """An adapter whose base only its card could name."""
    place.publish({**place.adapter(UNKNOWN_WIDTH, base_model_name_or_path=None), "README.md": text.encode()})


def _front(name: str) -> str:
    return f"---\n{hostile.FRONT_MATTER[name]}\n---\n".replace("base_model: owner/base", "base_model: evil/nowhere")


_BROKEN = b'{"id": "a/b", "siblings": ' + b"[" * 100_000
KINDS: dict[str, Callable[[Place], None]] = {
    # bases
    "tokenizer that panics": tokenizer_that_panics,
    "tokenizer that grows": tokenizer_that_grows,
    "tokenizer of a million words": tokenizer_of_a_million_words,
    "tokenizer of brackets": tokenizer_of_brackets,
    "base with a billion labels": partial(base_with_config, num_labels=10**9, id2label=None, label2id=None),
    "base with a billion layers": partial(base_with_config, num_hidden_layers=10**9),
    "base of a vast vocabulary": partial(base_with_config, vocab_size=10**12),
    "base of remote code": partial(base_with_config, auto_map={"AutoModel": "m.M"}, model_type="custom"),
    "base of an unknown architecture": partial(base_with_config, model_type="nothing", architectures=["Nothing"]),
    "base of brackets": base_of_brackets,
    "base cut off": partial(base_with_weights, change=lambda content: content[:-100]),
    "base of a lying header": partial(base_with_weights, change=lambda content: b"\xff" * 8 + content[8:]),
    "base of pickles": base_of_pickles,
    "base without a config": partial(base_without, name="config.json"),
    "base without weights": partial(base_without, name="model.safetensors"),
    "base without a tokenizer": partial(base_without, name="tokenizer.json"),
    "base of other sizes": base_of_other_sizes,
    "base of a terabyte": base_of_a_terabyte,
    "base that is an adapter": base_that_is_an_adapter,
    "base that is the repo itself": base_that_is_the_repo_itself,
    "base that does not exist": lambda place: place.publish_on_base(None, UNKNOWN_WIDTH),
    "base that is gated": partial(refused_base, status=403, code="GatedRepo"),
    # answers of the Hub
    "401": partial(refused, answer=Answer(401, {"X-Error-Code": "RepoNotFound"})),
    "403": partial(refused, answer=Answer(403, {"X-Error-Code": "GatedRepo"})),
    "404": partial(refused, answer=Answer(404, {"X-Error-Code": "RepoNotFound"})),
    "429": too_many_requests,
    "500": lambda place: weights_answer(place, lambda _: Answer(500)),
    "no answer": lambda place: weights_answer(place, lambda _: Answer(hangs=True)),
    "answer cut off": partial(options, cut_after=100),
    "answer that stalls": partial(options, stall_after=100),
    TRICKLING: lambda place: place.publish(place.adapter()),
    "listing that is no JSON": partial(listing_of, body=b"<html>"),
    "listing of brackets": partial(listing_of, body=_BROKEN),
    "listing without a commit": partial(listing_of, body=b'{"id": "a/b", "siblings": []}'),
    "listing that is a list": partial(listing_of, body=b"[1]"),
    "listing of negative sizes": partial(listed_with, files={WEIGHTS: -1}),
    "listing of many files": partial(listed_with, files={f"f{n}.json": 10 for n in range(50_000)}),
    "weights over the limit": partial(listed_with, files={WEIGHTS: MAX_FILE_BYTES + 1}),
    "weights larger than listed": larger_than_listed,
    "other bytes than listed": other_bytes,
    "gzip bomb in a config": partial(gzip_bomb, path=CONFIG),
    "gzip bomb in the listing": partial(gzip_bomb, path=None),
    "redirect in a circle": partial(redirected, target="/{repo_id}/resolve/{sha}/" + CONFIG),
    "redirect to a file": partial(redirected, target="file:///etc/passwd"),
    "redirect to nowhere": partial(redirected, target="http://127.0.0.1:9/x"),
    "path above the folder": partial(listed_with, files={"../../.bashrc": 10}),
    "absolute path": partial(listed_with, files={"/etc/cron.d/job": 10}),
    "path with a zero byte": partial(listed_with, files={"a\0.json": 10}),
    "path of another system": partial(listed_with, files={"C:\\run.json": 10}),
    "path of a hundred thousand characters": partial(listed_with, files={"../" * 33_333: 10}),
    # files
    "zip bomb": zip_bomb,
    "thousands of tensors": thousands_of_tensors,
    "huge header": huge_header,
    "sparse weights": sparse_weights,
    "bidirectional names": bidirectional_names,
    "full model of a billion labels": partial(full_model, num_labels=10**9, id2label=None, num_hidden_layers=10**7),
    "full model of a vast vocabulary": partial(full_model, vocab_size=10**12),
    "card of laughs": partial(card, text=_front("card_of_laughs")),
    "card of brackets": partial(card, text=_front("card_of_brackets")),
    "card of newlines": partial(card, text="---\nbase_model:\n" + "\n" * 2**20 + "---\n"),
    "card of tags": partial(card, text="<" * 2**22),
}


def _folder_kind(name: str) -> Callable[[Place], None]:
    def publish(place: Place) -> None:
        bad_inputs.FOLDERS[name].make(place.folder / "folder")
        place.publish(read(place.folder / "folder"))

    return publish


FOLDER_KINDS = {name: _folder_kind(name) for name in bad_inputs.FOLDERS if name not in NOT_SERVED}


def publish(hub: ScriptedHub, folder: Path, repos: int, seed: int) -> dict[str, str]:
    """Publish hostile repos, and return the kind of each. Each of the `KINDS` comes first, then each of the folders of
    the tests, and then `KINDS` at random.
    """
    kinds = [*KINDS, *FOLDER_KINDS]
    kinds += random.Random(seed).choices(list(KINDS), k=max(0, repos - len(kinds)))
    published = {}
    for number, kind in enumerate(kinds[:repos]):
        place = Place(hub, f"{OWNER}/r{number:03}", folder / str(number), number)
        place.folder.mkdir(parents=True)
        {**KINDS, **FOLDER_KINDS}[kind](place)
        published[place.repo_id] = kind
    return published
