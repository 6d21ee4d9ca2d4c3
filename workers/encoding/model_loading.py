"""Loading of whole models from untrusted folders."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from catalog.errors import CatalogError, CorruptWeights, Refused
from catalog.errors.root import first_line
from workers.encoding.decoder import check_is_decoder
from workers.encoding.lm_class import body_name, has_headless_class, headless, is_text_alone, lm_auto_class
from workers.finetunes.config_numbers import check_numbers
from workers.finetunes.gathering import empty_tensor
from workers.finetunes.repo_files import INDEX_FILE, WHOLE_MODEL
from workers.finetunes.tensor_names import names_other_part, wrapper_patterns
from workers.finetunes.weight_files import local_headers, tensor_entries
from workers.process.scratch import scratch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# what a config may ask for in relation to the tensors in its files, and in any case
MIN_LAYERS = 4096
MODULES_PER_TENSOR, MIN_MODULES = 16, 2**14  # modules and parameters; the classes of transformers have up to 4
FREE_PARAMETERS = 2**24
# settings by which configs build lists; the numbers of all other modules are limited while they are built
LAYER_COUNT = re.compile(r"(?<!per_)layers?$|^depths?$")
# settings that name code (kernels from the Hub, classes in the repo) or other files, change classes for the whole
# process, or contain regular expressions that transformers would match
UNSAFE_SETTING = re.compile(
    r"^_|implementation|kernel|auto_map|trust_remote_code|custom_pipelines|transformers_weights|fusion_config"
    r"|quantization_config|^num_labels$|^id2label$|^label2id$"  # lists of classes, for heads that are not loaded
    r"|^(torch_)?dtype$"  # the worker's own counts, and transformers reads no other spelling of this one
)


@contextmanager
def clean_view(folder: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary folder with links to the weights files that transformers loads from `folder`, an index that says what
    they hold, and a config without unsafe settings.

    transformers reads other files next to a model, and would follow an `adapter_config.json` to the Hub. Raises what
    `local_headers` raises.
    """
    headers = local_headers(folder)
    with scratch() as view:
        (view / "config.json").write_text(json.dumps(_without_unsafe_settings(config)), encoding="utf-8")
        for file in headers:
            (view / file).symlink_to((folder / file).resolve())
        if WHOLE_MODEL not in headers:
            weight_map = {name: file for file, header in headers.items() for name in header}
            index = json.dumps({"metadata": {}, "weight_map": weight_map})
            (view / INDEX_FILE).write_text(index, encoding="utf-8")
        yield view


def load_config(view: Path, refused: type[Refused]) -> PreTrainedConfig:
    """The config of a clean view whose model is not larger than its files. Raises `refused`."""
    return outline(view, refused).config


def outline(view: Path, refused: type[Refused]) -> PreTrainedModel:
    """The headless model of a clean view without its weights, on the device "meta", if it is not larger than the files.

    Raises `refused`.
    """
    shapes = [entry.shape for entry in tensor_entries(local_headers(view)).values()]
    content = json.loads((view / "config.json").read_text(encoding="utf-8"))
    check_numbers(content, refused)
    most_layers = max(len(shapes), MIN_LAYERS)
    for name, count in _layer_counts(content):
        if count > most_layers:
            raise refused(f"The config has {name[:40]} = {count:,}, but the files have {len(shapes):,} tensors.")
    try:
        config = AutoConfig.from_pretrained(view, local_files_only=True, trust_remote_code=False)
        if not isinstance(config.get_text_config(decoder=True), PreTrainedConfig):
            raise refused(f"The config's text part is no config of {config.model_type} models.")
        with _limited_modules(max(MODULES_PER_TENSOR * len(shapes), MIN_MODULES), refused):
            model = headless(config)
    except CatalogError:
        raise
    except Exception as error:  # validators of configs raise various classes
        what = "unknown or missing: " if isinstance(error, KeyError) else ""
        raise refused(
            f"transformers {version('transformers')} cannot load the config ({what}{first_line(error)}): correct "
            "config.json, so that `AutoModel.from_config` builds the model."
        ) from error
    check_is_decoder(model)
    required = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    stored = sum(math.prod(shape) for shape in shapes)
    # masks and tables of positions are not in the files, and small, except those of GPT-2 and its relatives
    if required > 2 * stored + FREE_PARAMETERS:
        raise refused(f"The config needs {required:,} parameters, but the files have {stored:,}.")
    return model


def load_headless(
    view: Path, config: PreTrainedConfig, dtype: str, refused: type[Refused], **placement: Any
) -> PreTrainedModel:
    """The model without its output head, as transformers loads it; `placement` are `device_map` and related arguments.

    Raises `CorruptWeights` and `refused`.
    """
    options = {"attn_implementation": "eager", **placement}
    model, missing = None, list[str]()
    if has_headless_class(config):
        model, missing = _load(AutoModel, view, config, dtype, refused, **options)
    if (model is None or missing) and (auto_class := lm_auto_class(config)):
        # some files are named for the causal LM alone (DeepSeek V4), or have tied weights as the head's only
        whole, missing_in_whole = _load(auto_class, view, config, dtype, refused, **options)
        body = body_name(whole)
        if body and (model is None or not missing_in_whole):
            model, missing = whole.get_submodule(body), missing_in_whole
    _refuse_missing(missing, view, refused)
    assert model is not None  # as in its outline
    return model.requires_grad_(False).eval()


def load_whole(view: Path, config: PreTrainedConfig, dtype: str, refused: type[Refused]) -> PreTrainedModel:
    """The model with its output head, unchanged, for training.

    Raises `CorruptWeights` and `refused`.
    """
    model, missing = _load(AutoModelForCausalLM, view, config, dtype, refused)
    _refuse_missing(missing, view, refused)
    return model


def _load(
    auto_class: Any, view: Path, config: PreTrainedConfig, dtype: str, refused: type[Refused], **options: Any
) -> tuple[Any, list[str]]:
    """The model, and the names of its weights that the files lack, which transformers initializes randomly."""
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
            key_mapping=wrapper_patterns(tensor_entries(local_headers(view)), text_alone=is_text_alone(config)) or None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **options,
        )
    except SafetensorError as error:
        raise CorruptWeights(f"The weights cannot be read: {error}.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
            raise
        raise refused(f"transformers cannot load the model: {first_line(error)}") from error
    for name, stored, expected in sorted(info["mismatched_keys"]):
        if not _is_unread(name, config):
            if 0 in stored:
                raise refused(empty_tensor(name, tuple(stored)))
            raise refused(
                f"{name[:120]} has the sizes {tuple(stored)} in the files and {tuple(expected)} by the config: submit "
                "weights and config that were saved together."
            )
    return model, sorted(name for name in info["missing_keys"] if not _is_unread(name, config))


def _is_unread(name: str, config: PreTrainedConfig) -> bool:
    """Whether the hidden states of text prompts do not depend on a weight: that of a pooler, which encoders have, or of
    a part for images or sound.
    """
    return name.startswith("pooler.") or (not is_text_alone(config) and names_other_part(name))


def _refuse_missing(names: Sequence[str], view: Path, refused: type[Refused]) -> None:
    if names:
        stored = tensor_entries(local_headers(view))
        similar = next((name for name in stored if name.endswith(f".{names[0]}")), None)
        other_name = f" (they have {similar[:120]}, the name in another class)" if similar else ""
        raise refused(
            f"The files lack weights of the config's model: {', '.join(names[:3])}{other_name}. Save all weights with "
            "`save_pretrained`, and the config with them."
        )


def _without_unsafe_settings(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {
            key: _without_unsafe_settings(value) for key, value in config.items() if not UNSAFE_SETTING.search(str(key))
        }
    return config


def _layer_counts(config: Any) -> Iterator[tuple[str, int]]:
    """The numbers of layers in a config, and the sizes of the lists that it writes as a list and a number of times."""
    for key, value in config.items() if isinstance(config, Mapping) else ():
        values = value if isinstance(value, list) else [value]
        if LAYER_COUNT.search(key):
            yield from ((key, count) for count in values if isinstance(count, int))
        yield key, _repeated(value)
        for part in values:
            yield from _layer_counts(part)


def _repeated(value: Any) -> int:
    """The number of items that GPT-Neo's notation `[[items, times], ...]` stands for."""
    if not isinstance(value, list):
        return 0
    if len(value) == 2 and isinstance(value[0], list) and isinstance(value[1], int):
        return len(value[0]) * value[1]
    return sum(_repeated(part) for part in value)


@contextmanager
def _limited_modules(limit: int, refused: type[Refused]) -> Iterator[None]:
    """Within the context, this thread may build `limit` modules and parameters. Raises `refused`."""
    thread, count = threading.get_ident(), 0

    def count_registration(*_: object) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > limit:
            raise refused(f"The config needs more than {limit:,} modules and parameters, and its files have fewer.")

    handles = [
        register(count_registration)
        for register in (register_module_module_registration_hook, register_module_parameter_registration_hook)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
