"""Files that hold something else than their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import CatalogError, CorruptWeights, InvalidAdapterConfig, InvalidModelConfig
from tests.support import pico
from workers.finetunes.reading import read_finetune

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3281000\n"
WEIGHTS = {
    "pointer": (POINTER, "Git LFS pointer.*git lfs pull"),
    "html": (b"<!DOCTYPE html>\n<html><head><title>Sign in", r"HTML or XML page.*DOCTYPE.*download the file again"),
    "xml": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code>', "HTML or XML page.*download the file again"),
    "error_in_xml": (b"<Error><Code>AccessDenied</Code></Error>", "page.*AccessDenied"),
    "error_in_json": (b'{"error":"Repository not found"}', "is a text.*Repository not found.*download the file again"),
    "error_in_words": (b"Access to this model is restricted.", "is a text.*Access to this model.*download"),
    "zip": (b"PK\x03\x04" + bytes(400), "zip archive.*save the weights as safetensors"),
    "pickle": (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "is a pickle.*save the weights"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(400), "GGUF file.*submit the safetensors"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(400), "HDF5.*save the weights"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(400), "gzip: unpack"),
    "empty": (b"", "is empty: upload"),
    "few_bytes": (b"\0\1", "truncated.*Upload it again"),
    "cut_off": ((10**6).to_bytes(8, "little") + b'{"a":', "truncated.*Upload it again"),
    "text_cut_within_a_character": ("Zugang verweigert: \u00e4".encode() * 20, "is a text"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_something_else_are_named(tmp_path: Path, name: str):
    content, words = WEIGHTS[name]
    (pico.make_adapter(tmp_path) / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(CorruptWeights, match=f"^adapter_model.safetensors .*{words}"):
        read_finetune(tmp_path)


CONFIGS = {
    "pointer": (POINTER, "Git LFS pointer.*git lfs pull"),
    "html": (b"<html><body>404", "HTML or XML page.*download the file again"),
    "empty": (b"", "is empty: upload"),
    "cut_off": (b'{"peft_type": "LO', "not JSON.*Save it again"),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("file", "error"), [("adapter_config", InvalidAdapterConfig), ("config", InvalidModelConfig)])
def test_configs_that_are_something_else_are_named(tmp_path: Path, name: str, file: str, error: type[CatalogError]):
    content, words = CONFIGS[name]
    make = pico.make_base if file == "config" else pico.make_adapter
    make(tmp_path)
    (tmp_path / f"{file}.json").write_bytes(content)
    with pytest.raises(error, match=f"^{file}.json .*{words}"):
        read_finetune(tmp_path)
