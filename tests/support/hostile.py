"""Read and encode inputs that a naive implementation would need years for: `python -m tests.support.hostile DIR`.

Prints the outcomes as a JSON object. It runs as a separate process because a regular expression that runs in `re` can
only be stopped by killing its process.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from catalog.errors import CatalogError
from tests.support import pico
from tests.support.pico_adapters import publish
from tests.support.pico_models import PROBES, make_base
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.card import bases_in_card, setting, split_front_matter, words
from workers.finetunes.peft_settings import known_settings
from workers.finetunes.reading import read_finetune

ENDLESS = r"((((\w|.)+)+)+)+,"  # needs 8**n steps on the name of a module with n characters
PEFT_SETTINGS = {
    "target_modules": ENDLESS,
    "exclude_modules": ENDLESS,
    "feedforward_modules": ENDLESS,
    "modules_to_save": [ENDLESS],
    "layers_to_transform": [0],
    "layers_pattern": ENDLESS,
    "rank_pattern": {ENDLESS: 7},
    "alpha_pattern": {ENDLESS: 7},
}
KINDS = ("lora", "dora", "loha", "lokr", "ia3", "oft", "vera")
LONG = 8 * 2**20  # characters; quadratic time in this length takes days


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    print(json.dumps({**adapters(folder), **long_names(folder), **headers(folder), **cards(folder)}))


def known(settings: dict[str, object], kind: str) -> dict[str, object]:
    """Those of the settings that the PEFT type of a kind has; others are refused."""
    peft_type = "LORA" if kind == "dora" else kind.upper()
    return {name: value for name, value in settings.items() if name in known_settings(peft_type)}


def adapters(folder: Path) -> dict[str, object]:
    """Whether the patterns leave the vectors of every kind of adapter as they are."""
    base = make_base(folder / "base", "llama")
    encoder = Encoder(ResidentBase.load(base, "pico/llama", "0"), PROBES)
    outcomes: dict[str, object] = {}
    for kind in KINDS:
        plain, hostile = (publish(base, folder / f"{kind}{suffix}", "llama", kind) for suffix in ("", "-hostile"))
        path = hostile / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | known(PEFT_SETTINGS, kind)))
        expected, actual = encoder.encode([read_finetune(plain), read_finetune(hostile)])
        if isinstance(expected, CatalogError) or isinstance(actual, CatalogError):
            outcomes[kind] = f"{expected} {actual}"
        else:
            outcomes[kind] = all(
                np.allclose(vector, actual.vectors[feature], atol=1e-6) for feature, vector in expected.vectors.items()
            )
    return outcomes


def long_names(folder: Path) -> dict[str, object]:
    """How an adapter with a long module name and slow patterns is read."""
    name = "a." * 200 + "a"
    tensors = {
        f"base_model.model.{name}.lora_A.weight": torch.zeros(8, 4),
        f"base_model.model.{name}.lora_B.weight": torch.zeros(4, 8),
    }
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "rank_pattern": {ENDLESS: 7, ".*.*.*.*.*.*.*.*x": 7}}
    (folder / "long").mkdir()
    save_file(tensors, folder / "long" / "adapter_model.safetensors")
    (folder / "long" / "adapter_config.json").write_text(json.dumps(config))
    return {"long_name": read_finetune(folder / "long").path}


def headers(folder: Path) -> dict[str, object]:
    """The error codes of headers with huge and with many shapes."""

    def code(shape: list[int]) -> str:
        adapter = pico.make_adapter(folder / f"shape{shape[0] % 7}")
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}
        header = json.dumps({"a": entry}).encode()
        (adapter / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
        try:
            read_finetune(adapter)
        except CatalogError as error:
            return error.code
        return "none"

    return {"huge_lengths": code([10**4000] * 3000), "many_lengths": code([9] * 5_000_000)}


def cards(folder: Path) -> dict[str, object]:
    """What is read from model cards that are slow to parse."""
    readme = folder / "README.md"
    readers: dict[str, Callable[[], object]] = {
        "card_tags": lambda: words("<" * LONG + "end")[-3:],
        "card_links": lambda: words("](" * LONG + "end")[-3:],
        "card_front_of_newlines": lambda: split_front_matter("---\n" + "\n" * LONG)[0],
        "card_setting_of_newlines": lambda: setting("base_model:\n" + "\n" * LONG + "- a/b", "base_model"),
    }
    outcomes = {name: read() for name, read in readers.items()}
    for name, front in FRONT_MATTER.items():
        readme.write_text(f"---\n{front}\n---\ntext")
        outcomes[name] = list(bases_in_card(readme))
    return outcomes


_LAUGHS = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 40)]
FRONT_MATTER = {
    "card_of_laughs": "\n".join(["a0: &a0 {x: y}", *_LAUGHS, "base_model: owner/base"]),
    "card_of_laughs_in_the_setting": "base_model:\n" + "\n".join(f" {line}" for line in ["a0: &a0 {x: y}", *_LAUGHS]),
    "card_of_brackets": "tags: " + "[" * 60_000 + "\nbase_model: owner/base",
    "card_of_brackets_in_the_setting": "base_model: " + "[" * 1900,
}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
