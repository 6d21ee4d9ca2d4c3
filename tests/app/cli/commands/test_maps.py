from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from app import cli
from catalog.database import Database
from catalog.maps.runner import MapRunner
from tests.support.clusters import cluster, fill


@pytest.fixture
def mapped(database: Database, url: str, tmp_path: Path) -> str:
    """URL of an API whose catalog has a map of twelve models."""
    fill(database)
    cluster(database, tmp_path)
    MapRunner(database, tmp_path).run(1)
    return url


def test_map_is_written_as_a_figure(mapped: str, tmp_path: Path):
    out = tmp_path / "map.svg"
    result = CliRunner().invoke(cli.cli, ["map", "--out", str(out), "--names", "--api", mapped])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"{out}: 12 models, 3 clusters"
    texts = {
        "".join(element.itertext()).strip()
        for element in ElementTree.parse(out).iter("{http://www.w3.org/2000/svg}text")
    }
    assert {"law (4)", "owner/tiny-math-2"} <= texts


def test_json_output_describes_the_figure(mapped: str, tmp_path: Path):
    out = tmp_path / "map.png"
    result = CliRunner().invoke(cli.cli, ["map", "-o", str(out), "--json", "--api", mapped])
    output = json.loads(result.stdout)
    assert (output["file"], output["models"], output["clusters"]) == (str(out), 12, 3)
    assert out.read_bytes().startswith(b"\x89PNG")
