"""Reads and encodes what was made to take years: `python -m tests.support.hostile DIR`.

Prints a JSON object of outcomes. It is a process of its own because a regular expression that runs in `re` cannot be
interrupted by anything else than killing its process.
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
from workers.finetunes.card import base_in_card, parted, setting, words
from workers.finetunes.reading import read_finetune

ENDLESS = r"((((\w|.)+)+)+)+,"  # on the name of any module: 8 to the power of its length
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
LONG = 8 * 2**20  # characters; their square is some days


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    print(json.dumps({**adapters(folder), **long_names(folder), **headers(folder), **cards(folder)}))


def adapters(folder: Path) -> dict[str, object]:
    """Whether every kind has the vector that it has without the patterns."""
    base = make_base(folder / "base", "llama")
    encoder = Encoder(ResidentBase.load(base, "pico/llama", "0"), PROBES)
    outcomes: dict[str, object] = {}
    for kind in KINDS:
        plain, hostile = (publish(base, folder / f"{kind}{way}", "llama", kind) for way in ("", "-hostile"))
        path = hostile / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | PEFT_SETTINGS))
        one, two = encoder.encode([read_finetune(plain), read_finetune(hostile)])
        if isinstance(one, CatalogError) or isinstance(two, CatalogError):
            outcomes[kind] = f"{one} {two}"
        else:
            outcomes[kind] = all(np.allclose(one.vectors[name], two.vectors[name], atol=1e-6) for name in one.vectors)
    return outcomes


def long_names(folder: Path) -> dict[str, object]:
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
    def code(shape: list[int]) -> str:
        made = pico.make_adapter(folder / f"shape{shape[0] % 7}")
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}
        header = json.dumps({"a": entry}).encode()
        (made / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
        try:
            read_finetune(made)
        except CatalogError as error:
            return error.code
        return "none"

    return {"huge_lengths": code([10**4000] * 3000), "many_lengths": code([9] * 5_000_000)}


def cards(folder: Path) -> dict[str, object]:
    readme = folder / "README.md"
    texts: dict[str, Callable[[], object]] = {
        "card_tags": lambda: words("<" * LONG + "end")[-3:],
        "card_links": lambda: words("](" * LONG + "end")[-3:],
        "card_front_of_newlines": lambda: parted("---\n" + "\n" * LONG)[0],
        "card_setting_of_newlines": lambda: setting("base_model:\n" + "\n" * LONG + "- a/b", "base_model"),
    }
    outcomes = {name: make() for name, make in texts.items()}
    for name, front in FRONT_MATTER.items():
        readme.write_text(f"---\n{front}\n---\ntext")
        outcomes[name] = base_in_card(readme)
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
