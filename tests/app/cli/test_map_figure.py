from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from app.cli import map_figure
from app.cli.map_figure import Style, draw
from catalog.errors import InvalidInput, MissingExtra
from tests.support.map_page import map_response

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def content() -> dict[str, Any]:
    response = map_response()
    response["clusters"][1]["name"] = "prices in $ and $"
    return response


def texts(file: Path) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ElementTree.parse(file).iter(f"{SVG}text")]


def marks(file: Path) -> list[ElementTree.Element]:
    """The drawn points, without those of the legend. A single one is a path, several are uses of a defined path."""
    tree = ElementTree.parse(file)
    legend_paths = {id(path) for element in tree.iter(f"{SVG}defs") for path in element.iter(f"{SVG}path")}
    groups = [element for element in tree.iter(f"{SVG}g") if element.get("id", "").startswith("PathCollection")]
    shapes = [element for group in groups for element in group.iter() if element.tag in (f"{SVG}use", f"{SVG}path")]
    return [element for element in shapes if id(element) not in legend_paths]


def test_cluster_names_are_drawn_as_editable_text(content: dict[str, Any], tmp_path: Path):
    draw(content, tmp_path / "map.svg", Style(title="The pool"))
    assert texts(tmp_path / "map.svg") == ["The pool", "law (3)", "prices in $ and $ (3)"]


def test_only_models_that_still_exist_have_a_point(content: dict[str, Any], tmp_path: Path):
    draw(content, tmp_path / "all.svg", Style())
    content["removed"] = [6]
    draw(content, tmp_path / "fewer.svg", Style())
    assert (len(marks(tmp_path / "all.svg")), len(marks(tmp_path / "fewer.svg"))) == (8, 7)


def test_distorted_points_are_faded(content: dict[str, Any], tmp_path: Path):
    draw(content, tmp_path / "map.svg", Style())
    faded = [mark for mark in marks(tmp_path / "map.svg") if "fill-opacity: 0.2" in mark.get("style", "")]
    assert len(faded) == 1


def test_model_names_are_drawn_on_request(content: dict[str, Any], tmp_path: Path):
    draw(content, tmp_path / "map.svg", Style(names=True, legend=False))
    assert texts(tmp_path / "map.svg") == map_figure.names(content)


def test_same_map_gives_the_same_bytes(content: dict[str, Any], tmp_path: Path):
    for name in ("one.svg", "two.svg"):
        draw(content, tmp_path / name, Style())
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_png_has_the_requested_size(content: dict[str, Any], tmp_path: Path):
    from PIL import Image

    draw(content, tmp_path / "map.png", Style(width=4, height=3, dpi=50))
    with Image.open(tmp_path / "map.png") as image:
        assert image.size == (200, 150)


@pytest.mark.parametrize("empty", [True, False])
def test_map_with_one_model_or_none_is_drawn(content: dict[str, Any], tmp_path: Path, empty: bool):
    content["arrivals"] = {"repo_ids": [], "x": [], "y": [], "cluster": []}
    content["clusters"] = []
    content["removed"] = list(range(0 if empty else 1, 7))
    draw(content, tmp_path / "map.svg", Style())
    assert len(marks(tmp_path / "map.svg")) == (0 if empty else 1)


def test_other_format_is_refused(content: dict[str, Any], tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"map\.jpg"):
        draw(content, tmp_path / "map.jpg", Style())


def test_missing_matplotlib_names_the_extra_to_install(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"deltadex\[evaluate\]"):
        draw(content, tmp_path / "map.svg", Style())
