from __future__ import annotations

import pytest

from catalog.errors import InvalidInput
from workers.bases.aliases import AliasTable, without_endings


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("unsloth/llama-3-8b-bnb-4bit", "meta-llama/Meta-Llama-3-8B"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-unsloth-bnb-4bit", "meta-llama/Llama-3.1-8B-Instruct"),
        ("unsloth/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "Qwen/Qwen2.5-7B-Instruct"),
        ("TheBloke/Mistral-7B-Instruct-v0.2-GPTQ", "mistralai/Mistral-7B-Instruct-v0.2"),
        ("gpt2", "openai-community/gpt2"),
        ("LLM-Research/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ],
)
def test_shipped_table_has_common_mirrors(name: str, original: str):
    assert AliasTable({}).originals(name)[0] == original


def test_admin_alias_overrides_the_shipped_one():
    assert AliasTable({"unsloth/Qwen2.5-7B": "own/copy"}).originals("unsloth/Qwen2.5-7B") == ["own/copy"]


def test_original_has_no_alias():
    assert AliasTable({}).originals("meta-llama/Llama-3.1-8B") == []


@pytest.mark.parametrize(
    "ending",
    [
        *("-bnb-4bit", "-bnb-8bit", "-unsloth-bnb-4bit", "-FP8", "-FP8-dynamic", "-FP8-Dynamic", "-fp8-block"),
        *("-NVFP4", "-MXFP4", "-w4a16", "-w8a8", "-W8A16", "-W4A16-G128", "-quantized.w4a16", "-quantized.w8a8"),
        *("-GPTQ", "-GPTQ-Int4", "-GPTQ-Int8", "-GPTQ-4bit-128g", "-AWQ", "-AWQ-INT4", "-HQQ", "-int8", "-nf4"),
        *("-4bit", "-8bit", "-6bit", "-bf16", "-mlx-4Bit", "-EXL2", "-4.0bpw-exl2", "-exl3"),
        *("-4bit-DWQ", "-4bit-DWQ-053125", "-NVFP4A16", "-int4-AutoRound-inc", "-int4-sym-inc", "-int8wo-hqq", "-eetq"),
        *("-q4f16_1-MLC", "-6bit-gs32", "-quanto-int8", "-vptq-4bit", "-gptq-marlin"),
        *("-GGUF", "-Q4_K_M-GGUF", "-i1-GGUF"),
    ],
)
def test_ending_of_a_conversion_is_removed(ending: str):
    assert without_endings(f"owner/Llama-3.1-8B{ending}")[-1] == "owner/Llama-3.1-8B"


@pytest.mark.parametrize(
    "name",
    [
        *("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B", "Qwen/Qwen3-4B-Instruct-2507", "google/gemma-3-4b-it"),
        *("mistralai/Mistral-7B-Instruct-v0.3", "google/gemma-3-4b-it-qat", "EleutherAI/pythia-70m", "owner/FP8"),
        *("microsoft/Phi-4-mini-instruct", "openai/gpt-oss-20b", "microsoft/bitnet-b1.58-2B-4T", "gpt2"),
    ],
)
def test_name_of_an_original_has_no_ending(name: str):
    assert without_endings(name) == []


@pytest.mark.parametrize("table", [["a/b"], {"a/b": 1}, {"a/b": "/etc"}, {"../x": "a/b"}])
def test_malformed_alias_table_is_rejected(table):
    with pytest.raises(InvalidInput, match="alias table"):
        AliasTable(table)
