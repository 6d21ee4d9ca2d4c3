from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalog.errors import InvalidProbeSet
from catalog.spaces.probes import MAX_CHARACTERS, MAX_PROBES, ProbeSet, load_probes


def write_set(folder: Path, content: object) -> Path:
    path = folder / "set.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_default_set_has_five_prompts_and_a_versioned_name():
    probes = load_probes()
    assert (len(probes.prompts), probes.name) == (5, "default-1")


def test_digest_of_the_default_set_never_changes():
    # vectors are stored under this digest, so new wording must be a new set, `default-2`
    assert load_probes().sha256 == "38c097cd776c0e2bf72f2768585ddd2f4ad088c0d012e8a438e652bd0108fa6d"


def test_default_prompts_share_their_instruction_and_differ_in_their_opening():
    prompts = load_probes().prompts
    openings = {prompt.split("\n\n")[0] for prompt in prompts}
    bodies = {prompt.partition("\n\n")[2] for prompt in prompts}
    assert len(openings) == 5
    assert bodies == {
        "### Instruction:\nPlease provide a response.\n\n### Input:\nInput.\n\n### Response:\n"
    }  # fmt: skip


def test_list_of_prompts_is_named_after_its_file(tmp_path: Path):
    assert load_probes(write_set(tmp_path, ["one", "two"])) == ProbeSet("set", ("one", "two"))


def test_named_set_keeps_its_name(tmp_path: Path):
    assert load_probes(write_set(tmp_path, {"name": "mine", "prompts": ["one"]})) == ProbeSet("mine", ("one",))


@pytest.mark.parametrize(
    "content",
    [
        *("", "not json", "3", '"text"', "null", "[]", "{}", '{"prompts": "one"}', '{"prompts": []}'),
        *("[1]", "[null]", '[""]', '[" \\n"]', '["one", ["two"]]'),
        ["x"] * (MAX_PROBES + 1),
        ["x" * (MAX_CHARACTERS + 1)],
    ],
)
def test_invalid_probe_set_is_rejected(tmp_path: Path, content: object):
    with pytest.raises(InvalidProbeSet):
        load_probes(write_set(tmp_path, content))


def test_missing_file_is_rejected(tmp_path: Path):
    with pytest.raises(InvalidProbeSet):
        load_probes(tmp_path / "missing.json")


def test_file_that_is_not_utf8_is_rejected(tmp_path: Path):
    path = tmp_path / "set.json"
    path.write_bytes(b'["\xff\xfe"]')
    with pytest.raises(InvalidProbeSet):
        load_probes(path)


def test_largest_set_is_accepted(tmp_path: Path):
    prompts = ["x" * MAX_CHARACTERS] * MAX_PROBES
    assert load_probes(write_set(tmp_path, prompts)).prompts == tuple(prompts)


def test_digest_ignores_the_name():
    assert ProbeSet("a", ("one", "two")).sha256 == ProbeSet("b", ("one", "two")).sha256


@pytest.mark.parametrize("other", [("two", "one"), ("one",), ("one", "two "), ("onetwo",), ("one", "two", "two")])
def test_digest_depends_on_the_prompts_and_their_order(other: tuple[str, ...]):
    assert ProbeSet("a", other).sha256 != ProbeSet("a", ("one", "two")).sha256
