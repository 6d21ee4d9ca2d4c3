"""The page of the map: files of `static/`, which ask this API and nobody else."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse

FOLDER = Path(__file__).parent / "static"
# scripts, styles and answers of this server alone: names on the map are strangers' words
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
TYPES = {".js": "text/javascript", ".css": "text/css"}

router = APIRouter(include_in_schema=False)


@router.get("/")
def home() -> RedirectResponse:
    return RedirectResponse("/map")


@router.get("/map")
def page() -> FileResponse:
    return FileResponse(FOLDER / "index.html", headers=HEADERS, media_type="text/html")


def _serve(name: str) -> None:
    @router.get(f"/map/{name}")
    def file() -> FileResponse:
        return FileResponse(FOLDER / name, headers=HEADERS, media_type=TYPES[Path(name).suffix])


for _name in ("map.js", "drawing.js", "points.js", "map.css"):
    _serve(_name)
