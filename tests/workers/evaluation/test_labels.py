from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import InvalidLabels
from workers.evaluation.labels import check_groups, read_labels


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("header", ["", "model,label\n", "Repo_id,Domain\n", "\ufeffmodel,label\n"])
def test_a_header_may_be_there_and_is_no_model(tmp_path: Path, header: str):
    found = read_labels(written(tmp_path, header + "o/a,law\no/b, maths \n"))
    assert [(each.model, each.label) for each in found] == [("o/a", "law"), ("o/b", "maths")]


def test_lines_are_counted_as_an_editor_does(tmp_path: Path):
    found = read_labels(written(tmp_path, 'model,label\r\n\r\no/a,"law, old"\r\n'))
    assert [(each.label, each.line) for each in found] == [("law, old", 3)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("o/a,law\no/b\n", "Line 2 of labels.csv has 1 columns"),
        ("o/a,law,old\n", "Line 1 of labels.csv has 3 columns"),
        ("o/a,law\no/b,\n", "Line 2 of labels.csv has no label"),
        ("o/a,law\n,law\n", "Line 2 of labels.csv has no model"),
        ("o/a,law\n\no/a,maths\n", "Line 3 of labels.csv repeats o/a, which line 1 has"),
        ('o/a,"law\n', "Line 1 of labels.csv is not CSV"),
        ("model,label\n", "names no models"),
        ("", "names no models"),
        (b"o/a,\xff\n", "is not UTF-8"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, content: str | bytes, told: str):
    with pytest.raises(InvalidLabels, match=told):
        read_labels(written(tmp_path, content))


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InvalidLabels, match=r"missing\.csv cannot be read"):
        read_labels(tmp_path / "missing.csv")


def test_one_label_tells_nothing_apart(tmp_path: Path):
    with pytest.raises(InvalidLabels, match="All models are labelled law"):
        check_groups(read_labels(written(tmp_path, "o/a,law\no/b,law\n")))


def test_a_label_with_one_model_is_named_with_its_line(tmp_path: Path):
    with pytest.raises(InvalidLabels, match="maths, in line 2, has one model"):
        check_groups(read_labels(written(tmp_path, "o/a,law\no/c,maths\no/b,law\n")))
