"""A corpus of malformed and malicious folders, each with the code of the error that a worker must report.

Each function that makes one starts from a valid adapter of `pico.make_base` (or a full model) and corrupts one thing.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support import pico

LIMIT = 4 * 2**20  # the maximal size of a file in bytes, for readers of the corpus
FILES = 10_001
CONFIG, WEIGHTS, MLX_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapters.safetensors"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3281000\n"
Q = "base_model.model.model.layers.0.self_attn.q_proj"
V = "base_model.model.model.layers.1.self_attn.v_proj"
SLOW_PATTERN = r"((((\w|.)+)+)+)+,"


@dataclass(frozen=True)
class BadInput:
    """`words` is a regular expression for the sentence of the error: what the matter is, and what to do."""

    make: Callable[[Path], object]
    code: str
    words: str = ""


class Canary:
    """Its pickle creates a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self._path),)


def canary_path(folder: Path) -> Path:
    """The path that exists if code in the folder was executed."""
    return folder.parent / f"{folder.name}-was-executed"


# corrupted adapters


def config(**settings: Any) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        path = pico.make_adapter(folder) / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return make


def config_text(content: str | bytes) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        path = pico.make_adapter(folder) / CONFIG
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def tensors(change: Callable[[dict[str, torch.Tensor]], object], **settings: Any) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        config(**settings)(folder)
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)

    return make


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change the entries of the header, and leave the bytes of the tensors as they are."""

    def make(folder: Path) -> None:
        content = (pico.make_adapter(folder) / WEIGHTS).read_bytes()
        length = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + length])
        change(entries)
        write_raw(folder, json.dumps(entries).encode(), content[8 + length :])

    return make


def raw(head: bytes, data: bytes = b"", length: int | None = None) -> Callable[[Path], object]:
    return lambda folder: write_raw(pico.make_adapter(folder), head, data, length)


def write_raw(folder: Path, head: bytes, data: bytes, length: int | None = None) -> None:
    header_length = len(head) if length is None else length
    (folder / WEIGHTS).write_bytes(header_length.to_bytes(8, "little") + head + data)


def truncate(folder: Path) -> None:
    path = pico.make_adapter(folder) / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def pickled(name: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (pico.make_adapter(folder) / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(Canary(canary_path(folder))))

    return make


def disguised_pickle(folder: Path) -> None:
    """A file in the format of `torch.save` with the name of a safetensors file."""
    with zipfile.ZipFile(pico.make_adapter(folder) / WEIGHTS, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Canary(canary_path(folder))))


def many_files(folder: Path) -> None:
    pico.make_adapter(folder)
    for number in range(FILES):
        (folder / f"{number}.part").touch()


def oversized(folder: Path) -> None:
    with (pico.make_adapter(folder) / WEIGHTS).open("r+b") as stream:
        stream.truncate(LIMIT + 1)


def sparse_header(folder: Path) -> None:
    """A header as long as its declared length, which would take minutes to parse."""
    path = pico.make_adapter(folder) / WEIGHTS
    path.write_bytes((LIMIT - 8).to_bytes(8, "little") + b"[" * (LIMIT - 8))


def linked(name: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        elsewhere = pico.make_adapter(folder.parent / f"{folder.name}-elsewhere")
        (pico.make_adapter(folder) / name).unlink()
        (folder / name).symlink_to(elsewhere / name)

    return make


def pipe(folder: Path) -> None:
    (pico.make_adapter(folder) / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def no_weights(folder: Path) -> None:
    folder.mkdir()
    (folder / "README.md").write_text("Weights will follow.")


def weights_of(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (pico.make_adapter(folder) / WEIGHTS).write_bytes(content)


def config_without(*settings: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        path = pico.make_adapter(folder) / CONFIG
        path.write_text(
            json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in settings})
        )

    return make


def moved(name: str, to: str) -> Callable[[Path], object]:
    """Give a file of an adapter another name, or none ("")."""

    def make(folder: Path) -> None:
        path = pico.make_adapter(folder) / name
        if to:
            (folder / to).parent.mkdir(exist_ok=True)
            path.rename(folder / to)
        else:
            path.unlink()

    return make


def in_a_subfolder(folder: Path) -> None:
    pico.make_adapter(folder / "final")


def files(*names: str) -> Callable[[Path], object]:
    """A folder of files that hold nothing that is read."""

    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"content")

    return make


def replaced(
    change: Callable[[torch.Tensor], torch.Tensor], part: str = "lora_", **settings: Any
) -> Callable[[Path], object]:
    """Change all tensors whose names contain `part`."""

    def change_all(weights: dict[str, torch.Tensor]) -> None:
        weights.update({key: change(tensor).contiguous() for key, tensor in weights.items() if part in key})

    return tensors(change_all, **settings)


def mlx(**settings: Any) -> Callable[[Path], object]:
    """An adapter of MLX for the base of `pico.make_base`."""

    def make(folder: Path) -> None:
        folder.mkdir()
        name = "model.layers.0.self_attn.q_proj"
        save_file({f"{name}.lora_a": torch.ones(32, 4), f"{name}.lora_b": torch.ones(4, 32)}, folder / MLX_WEIGHTS)
        parameters = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 4, "scale": 20.0}}
        (folder / CONFIG).write_text(json.dumps({**parameters, "model": pico.BASE_ID, **settings}))

    return make


# corrupted full models


def full(change: Callable[[Path], object], **settings: Any) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        pico.make_base(folder, seed=1)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        (folder / "README.md").write_text(f"---\nbase_model: {pico.BASE_ID}\n---\n")
        change(folder)

    return make


def with_code(folder: Path) -> None:
    (folder / "modeling.py").write_text(f"import os; os.mkdir({str(canary_path(folder))!r})")


def with_index(shard: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        shutil.copyfile(folder / "model-00001-of-00001.safetensors", folder.parent / f"{folder.name}-outside")
        names = load_file(folder / "model-00001-of-00001.safetensors")
        index = {"weight_map": dict.fromkeys(names, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def packed(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"].to(torch.int8)
    save_file(weights, path)


def corrupt_model(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def set_value(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda weights: weights[f"{name}.lora_B.weight"][3].fill_(value)


def widen(weights: dict[str, torch.Tensor]) -> None:
    for name in [name for name in weights if "lora_A" in name]:
        weights[name] = torch.ones(4, 48)


def entry(**changes: Any) -> Callable[[dict[str, Any]], object]:
    """Change the entry of one tensor in a header."""
    return lambda entries: entries[f"{Q}.lora_A.weight"].update(changes)


def rename(name: str) -> Callable[[dict[str, Any]], object]:
    """Change the name of one tensor in a header."""
    return lambda entries: entries.update({name: entries.pop(f"{Q}.lora_A.weight")})


def overlap(entries: dict[str, Any]) -> None:
    first, second = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
    entries[second]["data_offsets"] = entries[first]["data_offsets"]


FOLDERS: dict[str, BadInput] = {
    # pickles
    "adapter_in_a_pickle": BadInput(
        pickled("adapter_model.bin"), "pickled_weights", "a pickle.*Save them as safetensors"
    ),
    "checkpoint_in_a_pickle": BadInput(pickled("pytorch_model.pt"), "pickled_weights"),
    "pickle_named_safetensors": BadInput(disguised_pickle, "corrupt_weights", "zip archive.*save the weights as"),
    # headers
    "header_longer_than_the_file": BadInput(raw(b"{}", length=2**40), "corrupt_weights"),
    "header_length_of_all_ones": BadInput(raw(b"{}", length=2**64 - 1), "corrupt_weights"),
    "header_of_brackets": BadInput(sparse_header, "corrupt_weights"),
    "header_that_is_not_json": BadInput(raw(b"{" * 100), "corrupt_weights"),
    "header_that_is_a_list": BadInput(raw(b"[]"), "corrupt_weights"),
    "header_without_tensors": BadInput(raw(b"{}"), "invalid_adapter_config", "nothing was saved.*ZeRO-3.*Gather"),
    "empty_file": BadInput(lambda folder: (pico.make_adapter(folder) / WEIGHTS).write_bytes(b""), "corrupt_weights"),
    "overlapping_offsets": BadInput(header(overlap), "corrupt_weights"),
    "offsets_with_a_hole": BadInput(header(lambda entries: entries.pop(f"{Q}.lora_A.weight")), "corrupt_weights"),
    "offsets_beyond_the_end": BadInput(header(entry(data_offsets=[0, 2**50])), "corrupt_weights"),
    "offsets_backwards": BadInput(header(entry(data_offsets=[512, 0])), "corrupt_weights"),
    "offsets_below_zero": BadInput(header(entry(data_offsets=[-512, 0])), "corrupt_weights"),
    "shape_larger_than_the_bytes": BadInput(header(entry(shape=[4, 2**40])), "corrupt_weights"),
    "shape_that_overflows": BadInput(header(entry(shape=[2**32, 2**32, 2**32])), "corrupt_weights"),
    "shape_below_zero": BadInput(header(entry(shape=[-4, -32])), "corrupt_weights"),
    "shape_of_words": BadInput(header(entry(shape=["4", "32"])), "corrupt_weights"),
    "shape_of_a_thousand_dimensions": BadInput(header(entry(shape=[1] * 1000 + [4, 32])), "corrupt_weights"),
    "shape_of_numbers_of_thousands_of_digits": BadInput(header(entry(shape=[10**4000] * 100)), "corrupt_weights"),
    "offsets_of_thousands_of_digits": BadInput(header(entry(data_offsets=[0, 10**4299])), "corrupt_weights"),
    "name_of_a_thousand_characters": BadInput(header(rename("a" * 1000)), "corrupt_weights"),
    "name_that_is_a_pattern": BadInput(header(rename(f"{Q}.(((a+)+)+)+.lora_A.weight")), "corrupt_weights"),
    "name_that_is_a_template": BadInput(header(rename(rf"{Q}.lora_A.\g<0>")), "corrupt_weights"),
    "dtype_that_is_none": BadInput(header(entry(dtype="F7")), "corrupt_weights"),
    "dtype_of_another_size": BadInput(header(entry(dtype="F64")), "corrupt_weights"),
    "entry_that_is_a_word": BadInput(header(lambda entries: entries.update(word="word")), "corrupt_weights"),
    "truncated": BadInput(truncate, "corrupt_weights", "is truncated.*Upload it again"),
    # values
    "nan": BadInput(tensors(set_value(Q, float("nan"))), "non_finite_weights", "NaN or infinity\\..*submit an earlier"),
    "infinity": BadInput(tensors(set_value(V, float("inf"))), "non_finite_weights"),
    "vector_beyond_float32": BadInput(tensors(set_value(V, 3e38)), "non_finite_vector"),
    "matrices_of_integers": BadInput(
        tensors(lambda weights: weights.update({f"{Q}.lora_A.weight": torch.ones(4, 32, dtype=torch.int32)})),
        "invalid_adapter_config",
    ),
    # invalid LoRA
    "rank_0": BadInput(config(r=0), "invalid_adapter_config"),
    "rank_below_0": BadInput(config(r=-4), "invalid_adapter_config"),
    "rank_100_000": BadInput(config(r=100_000), "invalid_adapter_config"),
    "rank_of_a_word": BadInput(config(r="four"), "invalid_adapter_config"),
    "rank_unlike_the_tensors": BadInput(config(r=8), "invalid_adapter_config"),
    "alpha_infinite": BadInput(config(lora_alpha=float("inf")), "invalid_adapter_config"),
    "pattern_that_takes_hours": BadInput(
        config(rank_pattern={SLOW_PATTERN: 4, ".*": 8}), "invalid_adapter_config"
    ),  # the first pattern matches nothing, and the second declares a wrong rank
    "pattern_that_looks_ahead": BadInput(config(rank_pattern={"(?!k_proj).*": 4}), "invalid_adapter_config"),
    "pattern_that_fills_the_memory": BadInput(config(rank_pattern={"x{1000}" * 50: 4}), "invalid_adapter_config"),
    "missing_a": BadInput(tensors(lambda weights: weights.pop(f"{Q}.lora_A.weight")), "invalid_adapter_config"),
    "missing_b": BadInput(tensors(lambda weights: weights.pop(f"{V}.lora_B.weight")), "invalid_adapter_config"),
    "vector_in_place_of_a_matrix": BadInput(
        tensors(lambda weights: weights.update({f"{Q}.lora_A.weight": torch.ones(4)})), "invalid_adapter_config"
    ),
    "rank_0_in_the_tensors": BadInput(
        tensors(lambda weights: weights.update({f"{Q}.lora_A.weight": torch.ones(0, 32)})), "invalid_adapter_config"
    ),
    # other adapter types
    "unknown_peft_type": BadInput(config(peft_type="NO_SUCH_TYPE"), "unsupported_adapter"),
    "peft_type_of_a_list": BadInput(config(peft_type=["LORA"]), "unsupported_adapter"),
    "init_that_changed_the_base": BadInput(config(init_lora_weights="pissa_niter_4"), "unsupported_adapter"),
    "loha_of_lora_tensors": BadInput(config(peft_type="LOHA", lora_alpha=None), "shape_mismatch"),
    "loha_that_needs_too_much_memory": BadInput(
        tensors(
            lambda weights: (
                weights.clear(),
                weights.update({f"{Q}.hada_w{number}_{side}": torch.ones(4, 4) for number in "12" for side in "ab"}),
            ),
            peft_type="LOHA",
            r=8192,
            lora_alpha=None,
        ),
        "shape_mismatch",
    ),
    "experts_that_do_not_exist": BadInput(
        tensors(
            lambda weights: weights.update(
                {
                    f"{Q.replace('self_attn.q_proj', 'mlp.experts')}.lora_{side}.weight": torch.ones(4, 4)
                    for side in "AB"
                }
            ),
            target_parameters=["experts.down_proj"],
        ),
        "shape_mismatch",
    ),
    "prompt_of_a_billion_tokens": BadInput(
        tensors(
            lambda weights: (weights.clear(), weights.update(prompt_embeddings=torch.ones(3, 32))),
            peft_type="PROMPT_TUNING",
            num_virtual_tokens=10**9,
            **dict.fromkeys(("r", "lora_alpha", "target_modules", "bias")),
        ),
        "invalid_adapter_config",
    ),
    # bases
    "wrong_base": BadInput(tensors(widen), "shape_mismatch"),
    "base_with_too_few_layers": BadInput(
        tensors(
            lambda weights: weights.update({name.replace(".1.", ".7."): weights.pop(name) for name in list(weights)})
        ),
        "shape_mismatch",
    ),
    "base_on_a_local_path": BadInput(tensors(widen, base_model_name_or_path="../../secret"), "base_unresolved"),
    "base_with_a_zero_byte": BadInput(tensors(widen, base_model_name_or_path="pico/\0llama"), "base_unresolved"),
    "base_that_is_a_number": BadInput(tensors(widen, base_model_name_or_path=7), "base_unresolved"),
    # remote code
    "auto_map": BadInput(config(auto_map={"AutoModel": "modeling.Model"}), "remote_code"),
    "trust_remote_code": BadInput(config(trust_remote_code=True), "remote_code"),
    "full_with_auto_map": BadInput(full(with_code, auto_map={"AutoModel": "modeling.Model"}), "remote_code"),
    "full_with_trust_remote_code": BadInput(
        full(with_code, trust_remote_code=True, model_type="custom"), "remote_code"
    ),
    # JSON
    "config_of_a_list": BadInput(config_text("[]"), "invalid_adapter_config"),
    "config_of_a_word": BadInput(config_text('"LORA"'), "invalid_adapter_config"),
    "config_cut_off": BadInput(config_text('{"peft_type": "LO'), "invalid_adapter_config"),
    "config_of_brackets": BadInput(config_text("[" * 1_000_000), "invalid_adapter_config"),
    "config_of_a_hundred_levels": BadInput(config_text('{"r":' * 100 + "4" + "}" * 100), "invalid_adapter_config"),
    "config_that_is_not_text": BadInput(config_text(b"\xff\xfe\x00"), "invalid_adapter_config"),
    "config_of_five_megabytes": BadInput(config_text(b" " * 5 * 2**20 + b"{}"), "file_too_large"),
    "full_with_a_config_of_a_list": BadInput(
        full(lambda folder: (folder / "config.json").write_text("[]")), "invalid_model_config"
    ),
    # files
    "many_files": BadInput(many_files, "too_many_files"),
    "file_over_the_limit": BadInput(oversized, "file_too_large"),
    "linked_config": BadInput(linked(CONFIG), "unsafe_path"),
    "linked_weights": BadInput(linked(WEIGHTS), "unsafe_path"),
    "pipe_in_place_of_weights": BadInput(pipe, "no_supported_weights"),
    "no_weights": BadInput(no_weights, "no_supported_weights", "no weights yet: submit"),
    # full models
    "full_truncated": BadInput(full(corrupt_model), "corrupt_weights"),
    "full_quantized": BadInput(full(packed, quantization_config={"quant_method": "gptq"}), "quantized_weights"),
    "full_quantized_in_a_part": BadInput(
        full(
            packed,
            text_config={"quantization_config": {"quant_method": "fp8", "modules_to_not_convert": [SLOW_PATTERN]}},
        ),
        "quantized_weights",
    ),
    "lora_settings_of_another_type": BadInput(
        config(peft_type="LOHA"), "unsupported_adapter", "'lora_alpha'.*for LOHA.*remove the setting"
    ),
    # settings
    "unknown_setting_that_is_on": BadInput(config(use_new_lora=True), "unsupported_adapter", "'use_new_lora'.*remove"),
    "unknown_setting_that_is_on_inside": BadInput(
        config(new_lora_config={"a": {"b": 1}}), "unsupported_adapter", "'new_lora_config'.*remove"
    ),
    "unknown_initialization": BadInput(config(init_lora_weights="new"), "unsupported_adapter", "'new'.*write true"),
    "activated_lora": BadInput(
        config(alora_invocation_tokens=[5]), "unsupported_adapter", "alora_invocation_tokens .activated LoRA.*submit"
    ),
    "quantization_aware_lora": BadInput(config(use_qalora=True), "unsupported_adapter", "use_qalora .QALoRA.*submit"),
    "replicated_layers": BadInput(
        config(layer_replication=[[0, 2], [1, 2]]), "unsupported_adapter", "layer_replication .*more layers.*submit"
    ),
    "type_and_rank_missing": BadInput(
        config_without("peft_type", "r"), "invalid_adapter_config", "no peft_type.*add it"
    ),
    "rank_missing_and_not_8": BadInput(
        config_without("r"), "invalid_adapter_config", r"A of \[4, 32\].*rank 8 .*set `r`"
    ),
    "dora_without_magnitudes": BadInput(
        config(use_dora=True), "invalid_adapter_config", "use_dora.*no magnitudes.*save the adapter again"
    ),
    "dora_not_in_the_config": BadInput(
        tensors(lambda weights: weights.update({f"{Q}.lora_magnitude_vector": torch.ones(32)})),
        "invalid_adapter_config",
        "magnitudes of DoRA.*does not set use_dora: set it",
    ),
    # weights that were saved wrongly
    "pointer_in_place_of_weights": BadInput(
        weights_of(LFS_POINTER), "corrupt_weights", "Git LFS pointer.*git lfs pull"
    ),
    "pointer_in_place_of_the_config": BadInput(
        config_text(LFS_POINTER), "invalid_adapter_config", "Git LFS pointer.*git lfs pull"
    ),
    "page_in_place_of_weights": BadInput(
        weights_of(b"<!DOCTYPE html><html>Sign in"), "corrupt_weights", "HTML or XML page.*download the file again"
    ),
    "error_in_place_of_weights": BadInput(
        weights_of(b'{"error": "Access denied"}'),
        "corrupt_weights",
        "is a text.*Access denied.*download the file again",
    ),
    "weights_not_gathered": BadInput(
        replaced(lambda tensor: tensor[:0, 0]), "invalid_adapter_config", r"is empty \(shape \[0\]\).*ZeRO-3.*Gather"
    ),
    "weights_of_one_gpu": BadInput(
        replaced(lambda tensor: tensor[:2], "lora_A"), "invalid_adapter_config", "do not belong together.*FSDP.*Gather"
    ),
    "weights_flattened": BadInput(
        replaced(torch.flatten), "invalid_adapter_config", "is a vector of 128 numbers.*FSDP.*Gather"
    ),
    "weights_in_flat_parameters": BadInput(
        tensors(lambda weights: (weights.clear(), weights.update({"base_model._flat_param": torch.ones(400)}))),
        "invalid_adapter_config",
        "several modules, flattened.*Gather",
    ),
    "weights_in_int8": BadInput(
        replaced(lambda tensor: tensor.to(torch.int8)), "invalid_adapter_config", "int8.*no adapter: save it in float32"
    ),
    "weights_of_convolutions": BadInput(
        replaced(lambda tensor: tensor[..., None, None]), "invalid_adapter_config", "4 dimensions.*Submit the merged"
    ),
    # folders
    "adapter_without_a_config": BadInput(moved(CONFIG, ""), "no_supported_weights", "no adapter_config.json.*add"),
    "adapter_without_weights": BadInput(moved(WEIGHTS, ""), "no_supported_weights", "but no weights: upload"),
    "adapter_in_a_subfolder": BadInput(
        in_a_subfolder, "no_supported_weights", "in its folder final: submit that folder"
    ),
    "adapter_without_a_shard": BadInput(
        moved(WEIGHTS, "adapter_model-00001-of-00002.safetensors"), "no_supported_weights", "00002.*is missing: upload"
    ),
    "gguf": BadInput(files("model.gguf", "config.json"), "no_supported_weights", "GGUF.*submit the safetensors"),
    "onnx": BadInput(files("model.onnx", "config.json"), "no_supported_weights", "ONNX.*submit the safetensors"),
    "diffusers": BadInput(
        files("model_index.json", "unet/model.safetensors"), "no_supported_weights", "diffusers.*only language models"
    ),
    "tokenizer_alone": BadInput(files("tokenizer.json"), "no_supported_weights", "a tokenizer but no model: submit"),
    "adapter_of_mlx_with_full_weights": BadInput(
        mlx(fine_tune_type="full"), "unsupported_adapter", "fine_tune_type 'full'.*submit the full model"
    ),
    "adapter_of_mlx_without_a_scale": BadInput(
        mlx(lora_parameters={"rank": 4}), "invalid_adapter_config", "scale in lora_parameters.*write the number"
    ),
    "full_with_a_text_config_of_a_list": BadInput(full(str, text_config=["llama"]), "invalid_model_config"),
    "full_with_a_text_config_of_settings": BadInput(full(str, text_config={"hidden_size": 7}), "invalid_model_config"),
    "full_of_a_billion_layers": BadInput(full(str, num_hidden_layers=10**9), "invalid_model_config"),
    "full_of_a_billion_layer_types": BadInput(
        full(str, model_type="qwen2", num_hidden_layers=10**9, use_sliding_window=True), "invalid_model_config"
    ),
    "full_of_a_billion_repeated_layers": BadInput(
        full(str, model_type="gpt_neo", attention_types=[[["global", "local"], 10**9]]), "invalid_model_config"
    ),
    "full_of_more_modules_than_tensors": BadInput(
        full(str, model_type="deepseek_v3", num_hidden_layers=4000, moe_layer_freq=1), "invalid_model_config"
    ),
    "index_out_of_the_folder": BadInput(full(with_index("../index_out_of_the_folder-outside")), "corrupt_weights"),
    "index_of_an_absolute_path": BadInput(full(with_index("/dev/zero")), "corrupt_weights"),
    "index_of_a_missing_shard": BadInput(full(with_index("model-00002-of-00002.safetensors")), "corrupt_weights"),
}
