"""What is said of folders and repos in which nothing can be read, from their listings."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import NoSupportedWeights, PickledWeights
from tests.support import pico
from workers.finetunes.reading import read_finetune
from workers.finetunes.repo_files import choose_base, choose_finetune

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LISTINGS = {
    "no_adapter_config": ([WEIGHTS, "README.md"], "has adapter_model.safetensors but no adapter_config.json.*add"),
    "no_config_of_mlx": (["adapters.safetensors"], "has adapters.safetensors but no adapter_config.json.*add"),
    "no_adapter_weights": ([CONFIG, "README.md"], "has adapter_config.json but no weights: upload"),
    "no_config": (["model.safetensors"], "has model.safetensors but no config.json.*add"),
    "no_config_of_shards": (["model-00001-of-00002.safetensors"], "but no config.json"),
    "no_weights": (["config.json", "tokenizer.json"], "has config.json but no weights: upload"),
    "shard_is_missing": (
        [CONFIG, "adapter_model-00002-of-00002.safetensors"],
        "in 2 shards, of which adapter_model-00001-of-00002.safetensors is missing: upload",
    ),
    "adapter_in_a_folder": ([f"run/{CONFIG}", f"run/{WEIGHTS}"], "an adapter in its folder run: submit that folder"),
    "adapter_beside_gguf": (
        ["model.gguf", f"run/{CONFIG}", f"run/{WEIGHTS}"],
        "an adapter in its folder run: submit that folder",
    ),
    "adapters_in_folders": (
        [f"{folder}/{name}" for folder in "abc" for name in (CONFIG, WEIGHTS)],
        "an adapter in its folders a, b, c: submit one of them",
    ),
    "adapters_in_many_folders": (
        [f"{folder}/{name}" for folder in "abcde" for name in (CONFIG, WEIGHTS)],
        "in its folders a, b, c and 2 more: submit one of them",
    ),
    "weights_and_config_in_two_folders": (
        [CONFIG, f"checkpoint-9/{WEIGHTS}"],
        f"{WEIGHTS} in its folder checkpoint-9 and no {CONFIG} beside it: put both",
    ),
    "model_without_config_in_a_folder": (["fp16/model.safetensors"], "folder fp16 and no config.json beside it: put"),
    "model_in_a_folder": (["fp16/config.json", "fp16/model.safetensors"], "a model in its folder fp16: submit"),
    "diffusers": (["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"], "diffusers"),
    "text_encoder_of_diffusers": (
        ["model_index.json", "text_encoder/config.json", "text_encoder/model.safetensors"],
        "diffusers.*only language models",
    ),
    "lora_of_diffusers": (["pytorch_lora_weights.safetensors"], "diffusers.*only language models"),
    "deepspeed": (
        ["latest", "zero_to_fp32.py", "global_step9/zero_pp_rank_0_mp_rank_00_optim_states.pt"],
        "DeepSpeed.*zero_to_fp32",
    ),
    "fsdp": (["pytorch_model_fsdp_0/__0_0.distcp"], "FSDP.*merge-weights"),
    "gguf": (["model-Q4_K_M.gguf", "config.json"], r"GGUF.*model-Q4_K_M.gguf.*submit the safetensors"),
    "openvino": (["openvino_model.xml", "openvino_model.bin", "config.json"], "OpenVINO.*submit the safetensors"),
    "onnx": (["onnx/model.onnx", "config.json"], "ONNX.*submit the safetensors"),
    "tensorflow": (["tf_model.h5", "config.json"], "TensorFlow.*from_tf=True"),
    "flax": (["flax_model.msgpack", "config.json"], "Flax.*from_flax=True"),
    "old_mlx": (["adapters.npz", CONFIG], "NumPy.*as safetensors"),
    "nemo": (["model.nemo"], "another program.*submit the safetensors"),
    "ctranslate2": (["model.bin", "config.json"], "another program.*submit the safetensors"),
    "mlc": (["params_shard_0.bin", "mlc-chat-config.json"], "another program.*submit the safetensors"),
    "checkpoints_of_mlx": (["0000100_adapters.safetensors", CONFIG], "numbered checkpoints of MLX.*copy"),
    "consolidated": (["consolidated.safetensors", "params.json"], "Mistral.*format of transformers"),
    "sentence_transformers": (["modules.json", "1_Pooling/config.json"], "sentence-transformers.*submit"),
    "other_name": (["config.json", "weights.safetensors"], r"not read \(weights.safetensors\): name"),
    "training_state": (["optimizer.pt", "trainer_state.json", "training_args.bin"], "state of a training.*submit"),
    "tokenizer": (["tokenizer.json", "tokenizer_config.json", "README.md"], "a tokenizer but no model: submit"),
    "data": (["data/train-00000.parquet", "README.md"], "data but no model: submit"),
    "card": (["README.md", ".gitattributes"], "no weights yet: submit"),
    "nothing": ([], "no weights yet: submit"),
    "code": (["app.py", "README.md"], "neither an adapter .* nor a model .*: submit"),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_refusal_says_what_a_repo_holds_and_what_to_do(name: str):
    paths, words = LISTINGS[name]
    with pytest.raises(NoSupportedWeights, match=f"^owner/repo .*{words}"):
        choose_finetune("owner/repo", paths)


@pytest.mark.parametrize("path", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt"])
def test_pickles_are_named(path: str):
    with pytest.raises(PickledWeights, match=rf"only as {path}.*Save them as safetensors"):
        choose_finetune("owner/repo", [path, "config.json", "training_args.bin"])


def test_adapter_is_no_base_model():
    with pytest.raises(NoSupportedWeights, match="is an adapter and no base model: name the model"):
        choose_base("owner/repo", [CONFIG, WEIGHTS])


def test_long_names_are_cut():
    with pytest.raises(NoSupportedWeights) as error:
        choose_finetune("owner/repo", [f"{'a' * 5000}.gguf"])
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("folder", ["final", "outputs/run/checkpoint-100"])
def test_subfolder_of_a_local_folder_is_named(tmp_path: Path, folder: str):
    pico.make_adapter(tmp_path / folder)
    with pytest.raises(NoSupportedWeights, match=f"an adapter in its folder {folder}: submit that folder"):
        read_finetune(tmp_path)


def test_hidden_folders_are_not_named(tmp_path: Path):
    pico.make_adapter(tmp_path / ".git" / "modules")
    with pytest.raises(NoSupportedWeights, match="no weights yet"):
        read_finetune(tmp_path)


def test_folder_with_too_many_files_in_its_folders_is_described_by_the_upper_ones(tmp_path: Path):
    pico.make_adapter(tmp_path / "deep" / "folder")
    (tmp_path / "README.md").touch()
    with pytest.raises(NoSupportedWeights, match="no weights yet"):
        read_finetune(tmp_path, max_files=2)
