"""The real Hub client against the local Hub-protocol server."""

from __future__ import annotations

from pathlib import Path

from tests.support.hub_server import HubServer
from tests.support.waiting import LIMIT
from workers.hub.client import Hub

ADAPTER = {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.safetensors": b"w" * 300}
MODEL = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"m" * 300}


def make_hub(url: str, folder: Path, token: str | None = None, **limits) -> Hub:
    limits = {"timeout": LIMIT, "max_file_bytes": 10_000, "max_repo_files": 100} | limits
    return Hub(url, token, folder, **limits)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def fetch_all(hub: Hub, server: HubServer, repo_id: str, files: dict[str, bytes]) -> Path:
    server.commit(repo_id, files)
    return hub.fetch_finetune(hub.resolve(repo_id))
