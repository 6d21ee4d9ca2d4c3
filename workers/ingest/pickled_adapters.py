"""Adapters whose weights are a pickle, read as the safetensors that a reader converts them to."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from workers.finetunes.finetune import FineTune
from workers.finetunes.repo_files import ADAPTER_WEIGHTS, Choice
from workers.finetunes.unusable import PICKLED_ADAPTER
from workers.process.scratch import scratch
from workers.readers.interface import Readers

NOTE = f"Its weights are a pickle ({PICKLED_ADAPTER}), and were converted to safetensors to be read."


def read_pickled(readers: Readers, repo: str, folder: Path, choice: Choice, *, max_file_bytes: int) -> FineTune:
    """Read and verify the pickled adapter `choice` in a folder.

    Raises what `convert` and `read_finetune` raise. The tensors stay mapped from the converted file, which is deleted.
    """
    with scratch() as top:
        converted = top / folder.name  # by which errors name the fine-tune
        converted.mkdir()
        for path in choice.paths:
            name = path.rpartition("/")[2]
            if name == PICKLED_ADAPTER:
                readers.convert_pickled(repo, folder / path, converted / ADAPTER_WEIGHTS, max_file_bytes=max_file_bytes)
            else:
                shutil.copyfile(folder / path, converted / name)
        finetune = readers.read_finetune(repo, converted, max_file_bytes=max_file_bytes)
    return replace(finetune, folder=folder / choice.folder, notes=(*finetune.notes, NOTE))
