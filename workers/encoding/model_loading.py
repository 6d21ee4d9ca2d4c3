"""Loading of whole models from untrusted folders."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from catalog.errors import CatalogError, CorruptWeights, Refused
from catalog.errors.root import first_line
from workers.process.scratch import scratch

Shapes = Mapping[str, tuple[int, ...]]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
COUNT_SETTING = re.compile(r"layer|expert|block|depth")  # numbers of modules
MAX_COUNT = 4096
# settings that name code (kernels from the Hub, classes in the repo) or other files, change classes for the whole
# process, or contain regular expressions that transformers would match
UNSAFE_SETTING = re.compile(
    r"^_|implementation|kernel|auto_map|trust_remote_code|custom_pipelines|transformers_weights|fusion_config"
    r"|quantization_config"
)


@contextmanager
def clean_view(folder: Path, names: Sequence[str], config: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary folder with links to the named weights and a config without unsafe settings.

    transformers reads other files next to a model, and would follow an `adapter_config.json` to the Hub.
    """
    with scratch() as view:
        (view / "config.json").write_text(json.dumps(_without_unsafe_settings(config)), encoding="utf-8")
        for name in names:
            if name.endswith(".safetensors") or name.endswith(".safetensors.index.json"):
                (view / name).symlink_to((folder / name).resolve())
        yield view


def load_config(view: Path, shapes: Shapes, refused: type[Refused]) -> PreTrainedConfig:
    """Load a config, and check that its model is not larger than the files. Raises `refused`."""
    try:
        config = AutoConfig.from_pretrained(view, local_files_only=True, trust_remote_code=False)
        for name, count in _module_counts(config.to_dict()):
            if count > max(len(shapes), MAX_COUNT):
                raise refused(f"The config has {name} = {count:,}, but the files have {len(shapes):,} tensors.")
        with torch.device("meta"):
            meta_model = AutoModel.from_config(config, trust_remote_code=False, attn_implementation="eager")
    except CatalogError:
        raise
    except Exception as error:  # validators of configs raise various classes
        raise refused(f"transformers cannot load the config: {first_line(error)}") from error
    required = sum(tensor.numel() for tensor in (*meta_model.parameters(), *meta_model.buffers()))
    stored = sum(math.prod(shape) for shape in shapes.values())
    if required > stored + MAX_COUNT * MAX_COUNT:  # buffers are not in the files, and small
        raise refused(f"The config needs {required:,} parameters, but the files have {stored:,}.")
    return config


def load_headless(
    view: Path, config: PreTrainedConfig, dtype: str, refused: type[Refused], **placement: Any
) -> PreTrainedModel:
    """The model without its output head, as transformers loads it; `placement` are `device_map` and related arguments.

    Raises `CorruptWeights` and `refused`.
    """
    model: Any = _load(AutoModel, view, config, dtype, refused, attn_implementation="eager", **placement)
    return model.requires_grad_(False).eval()


def load_whole(view: Path, config: PreTrainedConfig, dtype: str, refused: type[Refused]) -> PreTrainedModel:
    """The model with its output head, unchanged, for training.

    Raises `CorruptWeights` and `refused`.
    """
    return _load(AutoModelForCausalLM, view, config, dtype, refused)


def _load(
    auto_class: Any, view: Path, config: PreTrainedConfig, dtype: str, refused: type[Refused], **options: Any
) -> PreTrainedModel:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # it warns about the missing output head
    try:
        model, info = auto_class.from_pretrained(
            view,
            config=config,
            dtype=DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except SafetensorError as error:
        raise CorruptWeights(f"The weights cannot be read: {error}.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
            raise
        raise refused(f"transformers cannot load the model: {first_line(error)}") from error
    # transformers initializes missing weights randomly
    if info["missing_keys"]:
        raise refused(f"The files lack weights of the config's model: {_first_names(info['missing_keys'])}.")
    return model


def _without_unsafe_settings(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {
            key: _without_unsafe_settings(value) for key, value in config.items() if not UNSAFE_SETTING.search(str(key))
        }
    return config


def _module_counts(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _module_counts(value)
        elif type(value) is int and COUNT_SETTING.search(key):
            yield key, value


def _first_names(names: Any) -> str:
    return ", ".join(sorted(names)[:3])
