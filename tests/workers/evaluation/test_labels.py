from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import InvalidLabels
from workers.evaluation.labels import check_labels, read_labels


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("header", ["", "model,label\n", "Repo_id,Domain\n", "\ufeffmodel,label\n"])
def test_header_is_optional(tmp_path: Path, header: str):
    models = read_labels(write(tmp_path, header + "o/a,law\no/b, maths \n"))
    assert [(model.model, model.label) for model in models] == [("o/a", "law"), ("o/b", "maths")]


def test_line_numbers_match_those_of_an_editor(tmp_path: Path):
    models = read_labels(write(tmp_path, 'model,label\r\n\r\no/a,"law, old"\r\n'))
    assert [(model.label, model.line) for model in models] == [("law, old", 3)]


@pytest.mark.parametrize(
    ("content", "message"),
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
def test_errors_name_the_line(tmp_path: Path, content: str | bytes, message: str):
    with pytest.raises(InvalidLabels, match=message):
        read_labels(write(tmp_path, content))


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InvalidLabels, match=r"missing\.csv cannot be read"):
        read_labels(tmp_path / "missing.csv")


def test_single_label_is_refused(tmp_path: Path):
    with pytest.raises(InvalidLabels, match="All models are labeled law"):
        check_labels(read_labels(write(tmp_path, "o/a,law\no/b,law\n")))


def test_label_with_one_model_is_refused_with_its_line(tmp_path: Path):
    with pytest.raises(InvalidLabels, match="maths, in line 2, has one model"):
        check_labels(read_labels(write(tmp_path, "o/a,law\no/c,maths\no/b,law\n")))
