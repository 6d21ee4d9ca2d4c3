from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from app import cli
from catalog.database import Database
from catalog.maps.runner import Drawer
from tests.support.clusters import cluster, fill


@pytest.fixture
def drawn(database: Database, url: str, tmp_path: Path) -> str:
    """Address of an API whose catalog has a map of twelve models."""
    fill(database)
    cluster(database, tmp_path)
    Drawer(database, tmp_path).run(1)
    return url


def test_the_map_is_drawn_as_a_figure(drawn: str, tmp_path: Path):
    out = tmp_path / "map.svg"
    result = CliRunner().invoke(cli.cli, ["map", "--out", str(out), "--names", "--api", drawn])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"{out}: 12 models, 3 clusters"
    texts = {
        "".join(each.itertext()).strip() for each in ElementTree.parse(out).iter("{http://www.w3.org/2000/svg}text")
    }
    assert {"law (4)", "owner/tiny-math-2"} <= texts


def test_for_scripts_it_says_what_was_drawn(drawn: str, tmp_path: Path):
    out = tmp_path / "map.png"
    result = CliRunner().invoke(cli.cli, ["map", "-o", str(out), "--json", "--api", drawn])
    told = json.loads(result.stdout)
    assert (told["file"], told["models"], told["clusters"]) == (str(out), 12, 3)
    assert out.read_bytes().startswith(b"\x89PNG")
