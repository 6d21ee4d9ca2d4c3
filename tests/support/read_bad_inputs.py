"""Read and encode the whole corpus with limited memory: `python -m tests.support.read_bad_inputs DIR BYTES`.

Prints the error codes as a JSON object. With `--believe` it allocates the tensor that one of the headers declares.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch

from catalog.errors import CatalogError
from catalog.spaces.probes import load_probes
from tests.support import pico
from tests.support.bad_inputs import FOLDERS, LIMIT
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune


def main(folder: Path, spare: int) -> None:
    base = ResidentBase.load(pico.make_base(folder / "base"), pico.BASE_ID, "0")
    encoder = Encoder(base, load_probes())
    import peft  # noqa: F401  (its memory is not counted)

    for name, bad_input in FOLDERS.items():
        bad_input.make(folder / name)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, used + spare))
    if "--believe" in sys.argv:
        torch.ones(4, 2**40)
    print(json.dumps({name: code(folder / name, encoder) for name in FOLDERS}))


def code(folder: Path, encoder: Encoder) -> str | None:
    try:
        result = encoder.encode([read_finetune(folder, max_file_bytes=LIMIT)])[0]
    except CatalogError as error:
        return error.code
    return result.code if isinstance(result, CatalogError) else None


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
