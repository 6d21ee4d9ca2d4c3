from __future__ import annotations

import pytest

from catalog.errors import InvalidInput
from workers.bases.names import AliasTable, read_claim


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
    ],
)
def test_shipped_table_has_common_mirrors(name: str, original: str):
    assert AliasTable({}).originals(name)[0] == original


def test_admin_alias_overrides_the_shipped_one():
    assert AliasTable({"unsloth/Qwen2.5-7B": "own/copy"}).originals("unsloth/Qwen2.5-7B") == ["own/copy"]


def test_original_has_no_alias():
    assert AliasTable({}).originals("meta-llama/Llama-3.1-8B") == []


@pytest.mark.parametrize("table", [["a/b"], {"a/b": 1}, {"a/b": "/etc"}, {"../x": "a/b"}])
def test_malformed_alias_table_is_rejected(table):
    with pytest.raises(InvalidInput, match="alias table"):
        AliasTable(table)


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        (" owner/name ", "owner/name"),
        ("https://huggingface.co/owner/name/", "owner/name"),
        ("/root/.cache/huggingface/hub/models--owner--na-me_1.5/snapshots/0123", "owner/na-me_1.5"),
        ("models--gpt2/snapshots/0123", "gpt2"),
        ("gpt2", "gpt2"),
    ],
)
def test_claim_is_read_as_a_repo_id(claim: str, name: str):
    assert read_claim(claim) == (name, None)


def test_overlong_claim_is_not_searched():
    name, objection = read_claim("models--" * 1000 + "models--owner--name")
    assert (name, objection) == ("models--" * 25, "is not the id of a repo")
