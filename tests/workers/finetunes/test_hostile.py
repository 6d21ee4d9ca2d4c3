"""Input made to take years takes seconds and has the expected outcome."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hostile import KINDS, PEFT_SETTINGS, known
from tests.support.pico_adapters import publish
from tests.support.pico_models import PROBES, make_base
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

LIMIT = 110  # seconds; it takes some ten on an idle machine
MORE_PATTERNS = {
    name: {PEFT_SETTINGS["target_modules"]: 8}
    for name in ("n_frequency_pattern", "block_size_pattern", "lambda_pattern")
}
EXPECTED = {
    **dict.fromkeys(KINDS, True),
    "long_name": "lora",
    "huge_lengths": "corrupt_weights",
    "many_lengths": "corrupt_weights",
    "card_tags": "end",
    "card_links": "end",
    "card_front_of_newlines": "",
    "card_setting_of_newlines": "",
    "card_of_laughs": ["owner/base"],
    "card_of_laughs_in_the_setting": [],
    "card_of_brackets": ["owner/base"],
    "card_of_brackets_in_the_setting": [],
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.support.hostile", str(tmp_path_factory.mktemp("hostile"))]
    root = Path(__file__).parents[3]
    completed = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert completed.returncode == 0, completed.stderr[-2000:]
    return json.loads(completed.stdout.splitlines()[-1])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EXPECTED)
def test_hostile_input_takes_bounded_time(outcomes: dict[str, object], name: str):
    assert outcomes[name] == EXPECTED[name]


@pytest.mark.exhaustive
def test_every_outcome_has_an_expectation(outcomes: dict[str, object]):
    assert outcomes.keys() == EXPECTED.keys()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr", "ia3", "fourierft", "c3a", "delora", "hira"])
def test_config_patterns_are_not_compiled_by_re(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    base = make_base(tmp_path / "base", "llama")
    encoder = Encoder(ResidentBase.load(base, "pico/llama", "0"), PROBES)
    folder = publish(base, tmp_path / "adapter", "llama", kind)
    path = folder / "adapter_config.json"
    config = json.dumps(json.loads(path.read_text()) | known(PEFT_SETTINGS | MORE_PATTERNS, kind))
    path.write_text(config.replace(json.dumps(PEFT_SETTINGS["target_modules"])[1:-1], "untrusted.+"))
    compiled: list[str] = []
    original_compile = re._compile  # type: ignore[attr-defined]

    def recording_compile(pattern: object, flags: int) -> object:
        compiled.append(str(pattern))
        return original_compile(pattern, flags)

    monkeypatch.setattr(re, "_compile", recording_compile)
    re.match("seen", "seen")
    (result,) = encoder.encode([read_finetune(folder)])
    monkeypatch.undo()
    assert isinstance(result, Encoding)
    assert "seen" in compiled
    assert [pattern for pattern in compiled if "untrusted" in pattern] == []
