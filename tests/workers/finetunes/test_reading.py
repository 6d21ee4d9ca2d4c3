from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from catalog.errors import (
    CorruptWeights,
    FolderUnreadable,
    InvalidAdapterConfig,
    NoSupportedWeights,
    PickledWeights,
    TooManyFiles,
    UnsafePath,
    UnsupportedAdapter,
)
from tests.support import pico
from tests.support.pico_adapters import publish
from tests.support.pico_models import make_base
from workers.finetunes.card import bases_in_card
from workers.finetunes.reading import find_finetune, read_finetune


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), "llama")


def set_config(folder: Path, **settings: object) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def shard(folder: Path) -> Path:
    """Split the weights of an adapter into two files."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for number in (1, 2):
        half = {name: tensor for place, (name, tensor) in enumerate(tensors.items()) if place % 2 == number - 1}
        save_file(half, folder / f"adapter_model-{number:05}-of-00002.safetensors")
    path.unlink()
    return folder


# kinds


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("adapter", "kind", "path"),
    [
        ("lora", "lora", "lora"),
        ("lora_patterns", "lora", "lora"),
        ("adalora", "adalora", "lora"),
        ("dora", "dora", "peft"),
        ("lora_bias", "lora", "peft"),
        ("modules_to_save", "lora", "peft"),
        ("trained_tokens", "lora", "peft"),
        ("ia3", "ia3", "peft"),
        ("ln_tuning", "ln_tuning", "peft"),
        ("p_tuning", "p_tuning", "prompt"),
        ("prefix_tuning", "prefix_tuning", "prompt"),
    ],
)
def test_kind_and_path_of_each_adapter_type(base: Path, tmp_path: Path, adapter: str, kind: str, path: str):
    finetune = read_finetune(publish(base, tmp_path, "llama", adapter))
    assert (finetune.kind, finetune.path) == (kind, path)
    assert finetune.shapes.keys() == finetune.tensors.keys()


def test_full_model_is_read_from_headers_alone(base: Path):
    finetune = read_finetune(base)
    assert (finetune.kind, finetune.path, finetune.nbytes) == ("full", "full", 0)
    assert finetune.shapes["model.embed_tokens.weight"] == (258, 32)


@pytest.mark.parametrize("peft_type", ["POLY", "XLORA", "SHADOW", "no such type", 7, ["LORA"]])
def test_unknown_peft_type_is_unsupported(tmp_path: Path, peft_type: object):
    with pytest.raises(UnsupportedAdapter):
        read_finetune(set_config(pico.make_adapter(tmp_path), peft_type=peft_type))


def test_missing_peft_type_is_read_if_the_tensors_can_only_be_lora(tmp_path: Path):
    finetune = read_finetune(set_config(pico.make_adapter(tmp_path), peft_type=None))
    assert (finetune.kind, finetune.path, finetune.config["peft_type"]) == ("lora", "lora", "LORA")
    assert "no peft_type" in finetune.notes[0]


@pytest.mark.parametrize("settings", [{"lora_alpha": None}, {}])
def test_missing_peft_type_beside_other_gaps_is_invalid(tmp_path: Path, settings: dict[str, object]):
    path = pico.make_adapter(tmp_path) / "adapter_config.json"
    path.write_text(json.dumps(settings))
    with pytest.raises(InvalidAdapterConfig, match=r"no peft_type.*add it"):
        read_finetune(tmp_path)


def test_shards_of_an_adapter_are_read_as_one(tmp_path: Path):
    whole = read_finetune(pico.make_adapter(tmp_path / "whole"))
    folder = shard(pico.make_adapter(tmp_path / "shards"))
    finetune = read_finetune(folder)
    assert finetune.shapes == whole.shapes
    assert all(torch.equal(tensor, whole.tensors[name]) for name, tensor in finetune.tensors.items())


def test_missing_shard_of_an_adapter_is_named(tmp_path: Path):
    (shard(pico.make_adapter(tmp_path)) / "adapter_model-00001-of-00002.safetensors").unlink()
    with pytest.raises(NoSupportedWeights, match=r"adapter_model-00001-of-00002.safetensors is missing"):
        read_finetune(tmp_path)


def test_tensor_in_two_shards_is_corrupt(tmp_path: Path):
    folder = shard(pico.make_adapter(tmp_path))
    first, second = sorted(folder.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(CorruptWeights, match="is in two files"):
        read_finetune(folder)


# which files are read


def test_adapter_takes_precedence_over_full_weights(base: Path, tmp_path: Path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    assert read_finetune(tmp_path).kind == "full"
    assert read_finetune(pico.make_adapter(tmp_path)).kind == "lora"


def test_full_weights_take_precedence_over_nested_adapters(base: Path, tmp_path: Path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    pico.make_adapter(tmp_path / "checkpoint-10")
    assert read_finetune(tmp_path).kind == "full"


def test_highest_checkpoint_is_read(tmp_path: Path):
    for number in (9, 10, 100):
        pico.make_adapter(tmp_path / f"checkpoint-{number}", rank=number)
    (tmp_path / "checkpoint-200").mkdir()
    finetune = read_finetune(tmp_path)
    assert find_finetune(tmp_path) == finetune.folder == tmp_path / "checkpoint-100"
    assert (finetune.name, finetune.config["r"]) == (tmp_path.name, 100)


@pytest.mark.parametrize("nested", ["adapter/", "checkpoint-best/", "checkpoint-1/deeper/"])
def test_other_subfolders_are_not_read(tmp_path: Path, nested: str):
    pico.make_adapter(tmp_path / nested)
    with pytest.raises(NoSupportedWeights):
        read_finetune(tmp_path)


def test_pickled_weights_are_rejected_by_name(tmp_path: Path):
    pico.make_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(PickledWeights, match="weights only as adapter_model"):
        read_finetune(tmp_path)


def test_too_many_files_are_rejected(tmp_path: Path):
    pico.make_adapter(tmp_path)
    assert read_finetune(tmp_path, max_files=2)
    (tmp_path / "more.txt").touch()
    with pytest.raises(TooManyFiles):
        read_finetune(tmp_path, max_files=2)
    with pytest.raises(TooManyFiles):
        find_finetune(tmp_path, max_files=2)


def test_missing_folder_is_unreadable(tmp_path: Path):
    with pytest.raises(FolderUnreadable):
        read_finetune(tmp_path / "gone")


# links


def test_link_out_of_the_folder_is_unsafe(tmp_path: Path):
    pico.make_adapter(tmp_path / "other")
    folder = pico.make_adapter(tmp_path / "one")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "other" / name)
        with pytest.raises(UnsafePath, match=name):
            read_finetune(folder)
        (folder / name).unlink()
        (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())


def test_linked_checkpoint_is_unsafe(tmp_path: Path):
    pico.make_adapter(tmp_path / "other")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "checkpoint-1").symlink_to(tmp_path / "other")
    with pytest.raises(UnsafePath):
        read_finetune(tmp_path / "one")


def test_link_within_the_folder_is_followed(tmp_path: Path):
    weights = pico.make_adapter(tmp_path) / "adapter_model.safetensors"
    weights.rename(tmp_path / "weights")
    weights.symlink_to("weights")
    assert read_finetune(tmp_path).tensors


def test_links_of_the_hub_cache_are_followed(tmp_path: Path):
    """Its snapshots are folders of links to files that are named by their ETags."""
    repo = tmp_path / "models--owner--name"
    folder = pico.make_adapter(repo / "snapshots" / ("5" * 40) / "checkpoint-3")
    (repo / "blobs").mkdir()
    for file in sorted(folder.iterdir()):
        file.rename(repo / "blobs" / file.name)
        file.symlink_to(os.path.relpath(repo / "blobs" / file.name, folder))
    assert read_finetune(folder.parent).tensors


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_pipes_and_dangling_links_are_ignored(tmp_path: Path, name: str):
    for number, put in enumerate((os.mkfifo, lambda path: path.symlink_to(path), lambda path: path.symlink_to("gone"))):
        folder = pico.make_adapter(tmp_path / str(number))
        (folder / name).unlink()
        put(folder / name)
        with pytest.raises(NoSupportedWeights):
            read_finetune(folder)


# config and card


@pytest.mark.parametrize("content", ["[]", '"text"', "{", "", "[" * 100_000, "\xff"])
def test_config_that_is_not_an_object_is_invalid(tmp_path: Path, content: str):
    (pico.make_adapter(tmp_path) / "adapter_config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidAdapterConfig):
        read_finetune(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_config_may_have_the_encoding_of_an_editor(tmp_path: Path, encoding: str):
    path = pico.make_adapter(tmp_path) / "adapter_config.json"
    path.write_text(path.read_text(), encoding=encoding)
    assert read_finetune(tmp_path).kind == "lora"


@pytest.mark.parametrize("levels", [65, 900])
def test_deeply_nested_config_is_invalid(tmp_path: Path, levels: int):
    (pico.make_adapter(tmp_path) / "adapter_config.json").write_text('{"r":' * levels + "4" + "}" * levels)
    with pytest.raises(InvalidAdapterConfig, match=r"levels deep|not JSON"):
        read_finetune(tmp_path)


def test_config_with_too_many_lists_is_invalid(tmp_path: Path):
    (pico.make_adapter(tmp_path) / "adapter_config.json").write_text('{"r": [' + "[]," * 140_000 + "[]]}")
    with pytest.raises(InvalidAdapterConfig, match="more than 131,072 lists and objects"):
        read_finetune(tmp_path)


@pytest.mark.parametrize(
    ("card", "bases"),
    [
        ("---\nbase_model: owner/base\n---\ntext", ("owner/base",)),
        ("---\nlicense: mit\nbase_model:\n- owner/base\n---", ("owner/base",)),
        ("---\nbase_model: [a/a, b/b, a/a, 7]\n---\n", ("a/a", "b/b")),
        ("---\nbase_model: 7\n---\n", ()),
        ("---\n- base_model\n---\n", ()),
        ("---\nbase_model: [\n---\n", ()),
        ("---\n!!python/object/apply:os.abort []\n---\n", ()),
        ("---\nbase_model: 'owner/base' # here\nlicense: mit\n---\n", ("owner/base",)),
        ("---\nbase_model:\n  - owner/base\n\n# more\ntags: [\n---\n", ("owner/base",)),
        ("---  \nbase_model: owner/base\n--- \n---\nbase_model: b/b\n---\n", ("owner/base",)),
        ("---\nbase_model_relation: adapter\n---\n", ()),
        ("---\nmodel-index:\n- base_model: a/a\n---\n", ()),
        ("---\nbase_model:\n---\n", ()),
        ("---\nbase_model: null\n---\n", ()),
        ("---\nbase_model: {a: b}\n---\n", ()),
        ("---\nbase_model: !!python/name:os.abort\n---\n", ()),
        ("---\nbase_model: owner/base\n", ()),
        ("base_model: owner/base", ()),
        ("text\n---\nbase_model: owner/base\n---\n", ()),
    ],
)
def test_bases_of_the_card_are_read(tmp_path: Path, card: str, bases: tuple[str, ...]):
    (tmp_path / "README.md").write_text(card)
    assert bases_in_card(tmp_path / "README.md") == bases


def test_declared_base_and_card_base_are_separate(tmp_path: Path):
    (pico.make_adapter(tmp_path, base="one/base") / "README.md").write_text("---\nbase_model: other/base\n---\n")
    finetune = read_finetune(tmp_path)
    assert finetune.base_claims == {"declared": "one/base", "card": ("other/base",)}


def test_declared_revision_of_the_base_is_read(tmp_path: Path):
    config = pico.make_adapter(tmp_path) / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "revision": "step1000"}))
    assert read_finetune(tmp_path).declared_revision == "step1000"


def test_full_model_names_its_base_in_card_and_config(tmp_path: Path):
    config = pico.make_base(tmp_path) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_name_or_path": "owner/base"}))
    assert read_finetune(tmp_path).base_claims == {"card": (), "config": "owner/base"}


def test_without_a_card_there_is_no_card_base(tmp_path: Path):
    assert read_finetune(pico.make_adapter(tmp_path)).card_bases == ()
