"""Reading a full fine-tune: its config and its files' headers. The weights stay on disk until they are encoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from catalog.errors import InvalidModelConfig
from workers.finetunes.contents import Files
from workers.finetunes.finetune import MAX_CONFIG_BYTES, FineTune
from workers.finetunes.gathering import empty_tensor, refuse_flattened
from workers.finetunes.lora_config import PEFT_PREFIX
from workers.finetunes.model_config import without_leftovers
from workers.finetunes.tensor_names import clean_names, holder_of, wrapper_note
from workers.finetunes.weight_files import Header, read_headers, tensor_entries

CONFIG_FILE = "config.json"
UNMERGED_PARTS = (".lora_A.", ".lora_B.", ".lora_embedding_", ".lora_magnitude_vector", ".base_layer.")


def read_model(folder: Path, names: Sequence[str], files: Files) -> FineTune:
    """Read a full model from the files `names`. Raises what `read_finetune` raises for full models."""
    config = files.read_object(folder / CONFIG_FILE, InvalidModelConfig, max_bytes=MAX_CONFIG_BYTES)
    if not isinstance(config.get("model_type"), str):
        raise InvalidModelConfig(
            f'{CONFIG_FILE} of {folder.name} has no model_type: add it (such as "llama"), as `save_pretrained` does.'
        )
    entries = tensor_entries(read_headers(folder, names, files.read_header, files.read_object))
    _refuse_parts(entries)
    _refuse_unmerged(entries, folder.name)
    config, notes = without_leftovers(config, entries, folder.name)
    clean, wrapper_notes = clean_names(entries, InvalidModelConfig)
    if holder := holder_of(clean.values()):
        wrapper_notes += (wrapper_note(holder),)
    card = files.read_card()
    config_base = config.get("_name_or_path")  # where transformers before 4.50 loaded the weights from
    return FineTune(
        name=folder.name,
        kind="full",
        path="full",
        folder=folder,
        config=config,
        shapes={clean[name].removeprefix(PEFT_PREFIX): entry.shape for name, entry in entries.items()},
        card_bases=card.bases,
        card=card.words,
        config_base=config_base if isinstance(config_base, str) and config_base else None,
        notes=(*notes, *wrapper_notes),
    )


def _refuse_parts(entries: Header) -> None:
    """Raises `InvalidModelConfig` for weights that were saved without being gathered from all GPUs."""
    refuse_flattened(entries, InvalidModelConfig)
    for name, entry in entries.items():
        if 0 in entry.shape and name.endswith(".weight"):
            raise InvalidModelConfig(empty_tensor(name, entry.shape))


def _refuse_unmerged(names: Iterable[str], folder: str) -> None:
    unmerged = next((name for name in names if any(part in name for part in UNMERGED_PARTS)), None)
    if unmerged is not None:
        raise InvalidModelConfig(
            f"{folder} is a model whose LoRA was never merged: its weights hold {unmerged[:120]}. Save it after "
            "`merge_and_unload()`, or save the adapter alone with PEFT's `save_pretrained`."
        )
