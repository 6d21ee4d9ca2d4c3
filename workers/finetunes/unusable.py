"""Why nothing in a folder or repo can be read, and what to do, from the names of its files."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from catalog.errors import NoSupportedWeights, PickledWeights

ADAPTER_CONFIG = "adapter_config.json"
PICKLED_ADAPTER = "adapter_model.bin"  # the weights of adapters, as PEFT saved them before 2024
ADAPTER_SHARD = re.compile(r"adapter_model-(\d{5})-of-(\d{5})\.safetensors")
MODEL_WEIGHTS = re.compile(
    r"model(\.safetensors)?(-\d+-of-\d+)?\.safetensors"
)  # what `AutoModel` loads, without other copies

_ADAPTER_WEIGHTS = re.compile(rf"adapter_model\.safetensors|adapters\.safetensors|{ADAPTER_SHARD.pattern}")
_TRAINING_STATE = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state\w*)\.(bin|pt|pth|safetensors)|(trainer|training)_state\.json"
)
_PICKLED = re.compile(r".*\.(bin|pt|pth|ckpt|pkl)")
_TOKENIZER = re.compile(
    r"(tokenizer\w*|special_tokens_map|added_tokens|vocab|merges|chat_template)\.(json|model|txt|jinja)|spiece\.model"
)
_DATA = re.compile(r".*\.(parquet|jsonl|csv|tsv|arrow)|dataset_infos?\.json")
_KINDS = (
    ("an adapter", ADAPTER_CONFIG, _ADAPTER_WEIGHTS),
    ("a model", "config.json", MODEL_WEIGHTS),
)
MAX_FOLDERS = 3  # in an error
_SAVED = "submit the folder to which the model was saved."

# the format of a file by its path -> what it is, and what to submit instead; the first that occurs is named
_FORMATS: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), what, advice)
    for pattern, what, advice in (
        (
            r"model_index\.json|(unet|vae|transformer|text_encoder)/.*|(.*/)?pytorch_lora_weights\.safetensors"
            r"|(.*/)?diffusion_pytorch_model.*",
            "is of diffusers, so it generates images or videos",
            "only language models can be embedded.",
        ),
        (
            r"(.*/)?(zero_pp_rank_\d+_)?(mp_rank_\d+_model|bf16_zero_pp_rank.*|.*_optim)_states\.pt|zero_to_fp32\.py",
            "is a checkpoint of DeepSpeed, with the weights in parts",
            "join them with its zero_to_fp32.py (`--safe_serialization`) and submit the result.",
        ),
        (
            r"(.*/)?.*\.distcp",
            "is a sharded checkpoint of FSDP",
            "join the shards (`accelerate merge-weights`) and submit the result.",
        ),
        (
            r"(.*/)?.*\.gguf",
            "has its weights only as GGUF, the format of llama.cpp",
            "submit the safetensors that it was converted from.",
        ),
        (
            r"(.*/)?openvino_.*\.(xml|bin)",
            "has its weights only for OpenVINO",
            "submit the safetensors that it was converted from.",
        ),
        (
            r"(.*/)?.*\.onnx(_data)?",
            "has its weights only as ONNX",
            "submit the safetensors that it was converted from.",
        ),
        (
            r"(.*/)?(.*\.(h5|keras|tflite)|saved_model\.pb)",
            "has its weights only for TensorFlow",
            "load it with `from_tf=True`, save it with `save_pretrained` and submit the result.",
        ),
        (
            r"(.*/)?.*\.msgpack",
            "has its weights only for Flax",
            "load it with `from_flax=True`, save it with `save_pretrained` and submit the result.",
        ),
        (
            r"(.*/)?.*\.npz",
            "has its weights only as NumPy arrays, as MLX did in 2024",
            "save them as safetensors and submit the result.",
        ),
        (
            r"(.*/)?(.*\.(nemo|mlmodel|mlpackage|engine|plan|ggml|exl2|llamafile|litertlm|task|pte|rkllm|mnn)"
            r"|model\.bin|params_shard_\d+\.bin)",  # of CTranslate2 and MLC, no pickles
            "has its weights only in the format of another program",
            "submit the safetensors that it was converted from.",
        ),
        (
            r"\d+_adapters\.safetensors",
            "has only numbered checkpoints of MLX",
            "copy the one that counts to adapters.safetensors and submit the result.",
        ),
        (
            r"consolidated.*\.safetensors",
            "has its weights only in the format of Mistral's or Meta's own code",
            "submit the version in the format of transformers.",
        ),
        (
            r"modules\.json",
            "is of sentence-transformers, and the weights of its language model are not at the top level",
            "submit the model in its folder for the transformer on its own.",
        ),
    )
)


def unusable(name: str, paths: Collection[str]) -> NoSupportedWeights | PickledWeights:
    """The error for a folder or repo `name` with the files `paths`, of which none can be read."""
    listed = sorted(paths)
    top = {path for path in listed if "/" not in path}
    # a pipeline of diffusers has whole models in its folders
    for sentence in (_in_format(listed, _FORMATS[:1]), _nearly_complete(top), _in_a_folder(listed)):
        if sentence:
            return NoSupportedWeights(f"{name} {sentence}")
    if sentence := _in_format(listed, _FORMATS) or _without_config(listed):
        return NoSupportedWeights(f"{name} {sentence}")
    names = sorted({path.rpartition("/")[2] for path in listed})
    pickled = [file for file in names if _PICKLED.fullmatch(file) and not _TRAINING_STATE.fullmatch(file)]
    if pickled:
        return PickledWeights(
            f"{name} has its weights only as {pickled[0][:120]}, a pickle, which can run code when it is loaded. "
            f"Save them as safetensors and submit the new commit{_or_switch_on(top)}."
        )
    return NoSupportedWeights(f"{name} {_incomplete(top, names)}")


def _or_switch_on(top: set[str]) -> str:
    """What else helps with an adapter that would be read if an admin switched that on."""
    if {ADAPTER_CONFIG, PICKLED_ADAPTER} <= top:
        return ", or ask an admin of this server to have pickled adapters read (DELTADEX_PICKLED_ADAPTERS)"
    return ""


def _in_format(listed: list[str], formats: Sequence[tuple[re.Pattern[str], str, str]]) -> str | None:
    """The first of some formats that occurs."""
    for pattern, what, advice in formats:
        if path := next((path for path in listed if pattern.fullmatch(path)), None):
            return f"{what} ({path[:120]}): {advice}"
    return None


def _nearly_complete(top: set[str]) -> str | None:
    """What is missing beside weights in safetensors."""
    adapters = sorted(name for name in top if _ADAPTER_WEIGHTS.fullmatch(name))
    if adapters and ADAPTER_CONFIG not in top:
        return (
            f"has {adapters[0]} but no {ADAPTER_CONFIG}, without which the type, rank and alpha of the adapter are "
            f"unknown: add the {ADAPTER_CONFIG} that was saved with it."
        )
    if shards := [match for name in adapters if (match := ADAPTER_SHARD.fullmatch(name))]:
        count = int(shards[0][2])
        numbers = {int(shard[1]) for shard in shards}
        missing = next((number for number in range(1, count + 1) if number not in numbers), None)
        if missing is not None:
            return (
                f"has an adapter in {count:,} shards, of which adapter_model-{missing:05}-of-{count:05}.safetensors is "
                "missing: upload all shards, or save the adapter in one file."
            )
    models = sorted(name for name in top if MODEL_WEIGHTS.fullmatch(name))
    if models and "config.json" not in top:
        return (
            f"has {models[0]} but no config.json, without which the architecture is unknown: add the config.json that "
            "was saved with it."
        )
    return None


def _in_a_folder(listed: list[str]) -> str | None:
    """The folders that hold an adapter or a model."""
    files = _files_by_folder(listed)
    for what, config, weights in _KINDS:
        folders = [folder for folder, names in files.items() if config in names and any(map(weights.fullmatch, names))]
        if folders:
            named = ", ".join(folder[:120] for folder in folders[:MAX_FOLDERS])
            more = f" and {len(folders) - MAX_FOLDERS:,} more" if len(folders) > MAX_FOLDERS else ""
            where, which = ("folders", "one of them") if len(folders) > 1 else ("folder", "that folder")
            return (
                f"has no model at its top level, but {what} in its {where} {named}{more}: submit {which} on its own, "
                "or a repo or branch that has its files at the top level."
            )
    return None


def _without_config(listed: list[str]) -> str | None:
    """A folder of weights whose config lies elsewhere, or nowhere."""
    for folder, names in _files_by_folder(listed).items():
        for _, config, weights in _KINDS:
            if config not in names and (file := next(filter(weights.fullmatch, sorted(names)), None)):
                return (
                    f"has {file} in its folder {folder[:120]} and no {config} beside it: put both into one folder, or "
                    "at the top level, and submit that."
                )
    return None


def _files_by_folder(listed: list[str]) -> dict[str, set[str]]:
    files: dict[str, set[str]] = {}
    for path in listed:
        folder, _, file = path.rpartition("/")
        if folder:
            files.setdefault(folder, set()).add(file)
    return files


def _incomplete(top: set[str], names: list[str]) -> str:
    """What a folder holds in which there are no weights that can be read."""
    other = [name for name in names if name.endswith(".safetensors") and not _TRAINING_STATE.fullmatch(name)]
    if other:
        return (
            f"has safetensors under a name that is not read ({other[0][:120]}): name an adapter "
            "adapter_model.safetensors, and a model model.safetensors, and submit it with its config."
        )
    descriptions = {"README.md", ".gitattributes", ".gitignore", "LICENSE"}
    contents = (
        (any(map(_TRAINING_STATE.fullmatch, names)), "the state of a training but no weights", _SAVED),
        (ADAPTER_CONFIG in top, f"{ADAPTER_CONFIG} but no weights", "upload adapter_model.safetensors as well."),
        ("config.json" in top, "config.json but no weights", "upload model.safetensors (or its shards) as well."),
        (any(map(_TOKENIZER.fullmatch, names)), "a tokenizer but no model", "submit the repo with the weights."),
        (any(map(_DATA.fullmatch, names)), "data but no model", "submit a model that was trained on it."),
        (set(names) <= descriptions, "no weights yet", "submit it once they are uploaded."),
    )
    neither = (
        f"neither an adapter ({ADAPTER_CONFIG} and adapter_model.safetensors) nor a model (config.json and "
        "model.safetensors or its shards)"
    )
    what, advice = next(
        ((what, advice) for holds, what, advice in contents if holds), (neither, "submit one of these.")
    )
    return f"has {what}: {advice}"
