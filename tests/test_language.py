"""The words of the project: American spelling, and the terms of docs/glossary.md."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
RENAMED = ROOT / "docs" / "decisions" / "0067-public-names-follow-the-glossary.md"
SUFFIXES = {".py", ".md", ".js", ".html", ".css", ".toml", ".yml"}

# beginnings of words, as British English spells them; the same words in American English do not begin like this
BRITISH = (
    *("neighbour", "colour", "behaviour", "favour", "honour", "labelled", "modelled", "travelled", "licence", "centre"),
    *("centring", "centred", "catalogue", "artefact", "judgement", "fulfil ", "grey", "misspelt", "programme"),
    *("normalis", "standardis", "quantis", "organis", "recognis", "initialis", "summaris", "tokenis", "serialis"),
    *("penalis", "optimise", "minimise", "maximise", "generalis", "randomis", "realise", "analyse", "practise"),
)


def source_files() -> list[Path]:
    """All files but those in hidden folders, for a tree that is no Git checkout."""
    return [file for file in ROOT.rglob("*") if not any(part.startswith(".") for part in file.relative_to(ROOT).parts)]


@cache
def texts() -> dict[str, str]:
    """The text files of the project, without those that quote words that are not used."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    files = [ROOT / name for name in listed.stdout.splitlines()] or source_files()
    assert len(files) > 500
    quoting = {Path(__file__), GLOSSARY, RENAMED}
    return {
        str(file.relative_to(ROOT)): file.read_text()
        for file in files
        if file.suffix in SUFFIXES and file.is_file() and file not in quoting
    }


def words_not_used() -> list[str]:
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \|$", GLOSSARY.read_text().split("## Words that are not used")[1], re.MULTILINE
    )
    return [re.sub(r"\(.*?\)", "", word).strip() for row in rows[2:] for word in row.split(",")]


def test_spelling_is_american():
    british = re.compile(rf"(?!causal_judgement)\b\w*?(?:{'|'.join(BRITISH)})\w*", re.IGNORECASE)  # a task's name
    assert {name: set(british.findall(text)) for name, text in texts().items() if british.search(text)} == {}


def test_identifiers_use_the_words_of_the_glossary():
    words = words_not_used()
    assert len(words) > 20
    retired = re.compile(rf"(?<![a-zA-Z])(?:{'|'.join(map(re.escape, words))})(?![a-z])", re.IGNORECASE)
    uses = {name: sorted(set(retired.findall(text))) for name, text in texts().items() if retired.search(text)}
    assert uses == {}


def test_glossary_is_sorted_and_defines_each_term_once():
    terms = re.findall(r"^\*\*([^*]+)\.\*\*", GLOSSARY.read_text(), re.MULTILINE)
    assert len(terms) > 50
    assert terms == sorted(set(terms), key=str.lower)


@pytest.mark.parametrize("text", ["a neighbour", "colours", "it is normalised", "unlabelled"])
def test_british_spelling_is_recognized(text):
    assert re.search("|".join(BRITISH), text)
