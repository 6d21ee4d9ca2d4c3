"""Responses with the archive of an adapter."""

from __future__ import annotations

from typing import Any

from fastapi.responses import StreamingResponse

from catalog.archives.service import Download

ZIP = "application/zip"
ZIP_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {ZIP: {}},
        "description": "A zip file with `adapter_model.safetensors`, `adapter_config.json` and the model card.",
    }
}


def zip_response(download: Download) -> StreamingResponse:
    headers = {
        "Content-Length": str(download.size),
        "Content-Disposition": f'attachment; filename="{download.name}"',
        "ETag": f'"{download.sha256}"',
    }
    return StreamingResponse(download.pieces, media_type=ZIP, headers=headers)
