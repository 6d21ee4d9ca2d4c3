from __future__ import annotations

import pytest

from workers.bases.names import ClaimedRepo, read_claim, read_revision

COMMIT = "0123456789" * 4
HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        (" owner/name ", "owner/name"),
        ("gpt2", "gpt2"),
        ("owner/name/", "owner/name"),
        ("models/owner/name", "owner/name"),
        (f"{HUB}/owner/name/", "owner/name"),
        (f"{HUB}/owner/name?library=peft#usage", "owner/name"),
        (f"{HUB}/owner/name.git", "owner/name"),
        (f"{HUB}/owner/name/tree/main", "owner/name"),
        (f"{HUB}/owner/name/blob/main/config.json", "owner/name"),
        (f"{HUB}/owner/name/discussions/3", "owner/name"),
        (f"{HUB}/api/models/owner/name", "owner/name"),
        (f"{HUB}/gpt2/tree/main", "gpt2"),
        ("https://www.huggingface.co/owner/name", "owner/name"),
        ("https://user:secret@huggingface.co/owner/name", "owner/name"),
        ("huggingface.co/owner/name", "owner/name"),
        ("hf.co/owner/name", "owner/name"),
        ("https://hf-mirror.com/owner/name", "owner/name"),
        ("http://huggingface.example.org:8080/owner/name/tree/main", "owner/name"),
        ("hf://owner/name", "owner/name"),
        ("hf://models/owner/name/file.safetensors", None),
        ("hf://models/owner/name", "owner/name"),
        ("https://modelscope.cn/models/owner/name/summary", "owner/name"),
        ("https://www.modelscope.cn/models/owner/name/files", "owner/name"),
        ("models--gpt2/snapshots/0123", "gpt2"),
        ("/root/.cache/huggingface/hub/models--owner--na-me_1.5/snapshots/0123", "owner/na-me_1.5"),
        (r"C:\Users\me\.cache\huggingface\hub\models--owner--name\snapshots\0123", "owner/name"),
        ("/root/.cache/modelscope/hub/models/Qwen/Qwen2___5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("/root/.cache/modelscope/hub/Qwen/Qwen2___5-7B-Instruct/", "Qwen/Qwen2.5-7B-Instruct"),
        ("/root/.cache/modelscope/hub/models/owner/plain", "owner/plain"),
        (r"C:\cache\modelscope\hub\models\owner\v0___1", "owner/v0.1"),
        ("/root/.cache/modelscope/hub/models/Qwen___Qwen2___5-7B", "Qwen/Qwen2.5-7B"),
        ("/data/tmp/LLM-Research/Meta-Llama-3___1-8B-Instruct", "LLM-Research/Meta-Llama-3.1-8B-Instruct"),
        ("/data/models/Qwen___Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
    ],
)
def test_claim_is_read_as_a_repo_id(claim: str, name: str | None):
    read = read_claim(claim)
    assert (read.name if read.problem is None else None, read.revision) == (name, None)


@pytest.mark.parametrize(
    ("claim", "revision"),
    [
        (f"{HUB}/owner/name/tree/step1000", "step1000"),
        (f"{HUB}/owner/name/tree/step1000/folder", "step1000"),
        (f"{HUB}/owner/name/blob/{COMMIT}/config.json?download=true", COMMIT),
        (f"{HUB}/owner/name/resolve/v1.0/model.safetensors", "v1.0"),
        (f"{HUB}/owner/name/commit/{COMMIT}", COMMIT),
        (f"{HUB}/owner/name/tree/refs%2Fpr%2F1", "refs/pr/1"),
        (f"{HUB}/owner/name/tree/refs/pr/1/folder", "refs/pr/1"),
        ("https://hf-mirror.com/owner/name/tree/v1", "v1"),
        ("hf://owner/name@v1", "v1"),
        ("owner/name@v1", "v1"),
        (f"/root/.cache/huggingface/hub/models--owner--name/snapshots/{COMMIT}/", COMMIT),
    ],
)
def test_revision_in_a_claim_is_read(claim: str, revision: str):
    assert read_claim(claim) == ClaimedRepo("owner/name", revision)


@pytest.mark.parametrize(
    ("claim", "problem"),
    [
        ("/home/me/models/llama", "folder of the machine that trained it"),
        (r"models\llama", "folder of the machine that trained it"),
        ("./owner/name", "folder of the machine that trained it"),
        ("file:///models/llama", "folder of the machine that trained it"),
        ("/kaggle/input/llama-3/transformers/8b/1", "folder of a Kaggle notebook"),
        ("/content/drive/MyDrive/llama", "folder of a Colab notebook"),
        ("s3://bucket/llama", "address (s3:) that is not on the Hub"),
        ("https://example.org/owner/name", "address (https:) that is not on the Hub"),
        (f"{HUB}/datasets/owner/name", "address of a dataset"),
        (f"{HUB}/spaces/owner/name", "address of a Space"),
        (f"{HUB}/owner", None),
        ("a b", "not the id of a repo"),
        ("a/b/c", "not the id of a repo"),
        ("", "not the id of a repo"),
        (7, "not the id of a repo"),
    ],
)
def test_claim_that_names_no_repo_has_a_reason(claim: object, problem: str | None):
    read = read_claim(claim)
    assert (read.problem or "").endswith(problem or "")
    assert (read.problem is None) == (problem is None)


def test_overlong_claim_is_not_searched():
    assert read_claim("models--" * 1000 + "models--owner--name") == ClaimedRepo(
        "models--" * 25, problem="is not the id of a repo"
    )


@pytest.mark.parametrize("revision", [None, "", "main", "master", " main ", 3])
def test_main_branch_is_no_revision_of_its_own(revision: object):
    assert read_revision(revision) == (None, None)


def test_malformed_revision_has_a_reason():
    assert read_revision("../x") == (None, "'../x' is not a branch, tag or commit")
