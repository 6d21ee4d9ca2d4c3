"""An archive as an answer."""

from __future__ import annotations

from typing import Any

from fastapi.responses import StreamingResponse

from catalog.archives.service import Download

ZIP = "application/zip"
RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {"content": {ZIP: {}}, "description": "A zip file: `adapter_model.safetensors`, its config, a card."}
}


def answer(found: Download) -> StreamingResponse:
    headers = {
        "Content-Length": str(found.size),
        "Content-Disposition": f'attachment; filename="{found.name}"',
        "ETag": f'"{found.sha256}"',
    }
    return StreamingResponse(found.pieces, media_type=ZIP, headers=headers)
