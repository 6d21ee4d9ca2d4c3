from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from app.cli import map_figure
from app.cli.map_figure import Style, draw
from catalog.errors import InvalidInput, MissingExtra
from tests.support.map_page import answer

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def content() -> dict[str, Any]:
    found = answer()
    found["clusters"][1]["name"] = "prices in $ and $"
    return found


def texts(file: Path) -> list[str]:
    return ["".join(each.itertext()).strip() for each in ElementTree.parse(file).iter(f"{SVG}text")]


def marks(file: Path) -> list[ElementTree.Element]:
    """The points, without the legend's. One alone is a path, several are uses of one."""
    tree = ElementTree.parse(file)
    defined = {id(path) for each in tree.iter(f"{SVG}defs") for path in each.iter(f"{SVG}path")}
    groups = [each for each in tree.iter(f"{SVG}g") if each.get("id", "").startswith("PathCollection")]
    drawn = [each for group in groups for each in group.iter() if each.tag in (f"{SVG}use", f"{SVG}path")]
    return [each for each in drawn if id(each) not in defined]


def test_the_clusters_are_named_in_words_that_can_be_edited(content: dict[str, Any], tmp_path: Path):
    draw(content, tmp_path / "map.svg", Style(title="The pool"))
    assert texts(tmp_path / "map.svg") == ["The pool", "law (3)", "prices in $ and $ (3)"]


def test_every_model_has_a_point_and_those_that_left_have_none(content: dict[str, Any], tmp_path: Path):
    draw(content, tmp_path / "all.svg", Style())
    content["gone"] = [6]
    draw(content, tmp_path / "fewer.svg", Style())
    assert (len(marks(tmp_path / "all.svg")), len(marks(tmp_path / "fewer.svg"))) == (8, 7)


def test_the_misplaced_are_faded(content: dict[str, Any], tmp_path: Path):
    draw(content, tmp_path / "map.svg", Style())
    faded = [each for each in marks(tmp_path / "map.svg") if "fill-opacity: 0.2" in each.get("style", "")]
    assert len(faded) == 1


def test_models_are_named_when_asked_for(content: dict[str, Any], tmp_path: Path):
    draw(content, tmp_path / "map.svg", Style(names=True, legend=False))
    assert texts(tmp_path / "map.svg") == map_figure.names(content)


def test_the_same_map_gives_the_same_bytes(content: dict[str, Any], tmp_path: Path):
    for name in ("one.svg", "two.svg"):
        draw(content, tmp_path / name, Style())
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_png_has_the_size_that_was_asked_for(content: dict[str, Any], tmp_path: Path):
    from PIL import Image

    draw(content, tmp_path / "map.png", Style(width=4, height=3, dpi=50))
    with Image.open(tmp_path / "map.png") as image:
        assert image.size == (200, 150)


@pytest.mark.parametrize("empty", [True, False])
def test_a_map_of_one_model_or_none_is_drawn(content: dict[str, Any], tmp_path: Path, empty: bool):
    content["placed"] = {"repo_ids": [], "x": [], "y": [], "cluster": []}
    content["clusters"] = []
    content["gone"] = list(range(0 if empty else 1, 7))
    draw(content, tmp_path / "map.svg", Style())
    assert len(marks(tmp_path / "map.svg")) == (0 if empty else 1)


def test_another_format_is_refused(content: dict[str, Any], tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"map\.jpg"):
        draw(content, tmp_path / "map.jpg", Style())


def test_without_matplotlib_it_says_what_to_install(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"deltadex\[evaluate\]"):
        draw(content, tmp_path / "map.svg", Style())
