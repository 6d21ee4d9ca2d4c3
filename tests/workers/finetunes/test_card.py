from __future__ import annotations

from pathlib import Path

import pytest

from workers.finetunes.card import MAX_TEXT_CHARACTERS, words_of_card

CARD = """---
license: mit
tags: [secret]
---
# Contract **helper**

Answers about [contracts](https://example.org/x) and <b>courts</b>.

```python
import os
```
See https://example.org/y\0
"""


def test_card_text_has_no_code_markup_and_urls(tmp_path: Path):
    path = tmp_path / "README.md"
    path.write_text(CARD)
    assert words_of_card(path) == "Contract helper Answers about contracts and courts . See"


def test_long_card_is_truncated(tmp_path: Path):
    path = tmp_path / "README.md"
    path.write_text("word " * 10_000)
    assert len(words_of_card(path) or "") == MAX_TEXT_CHARACTERS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a <i>b</i> 1 < 2 > 0", "a b 1 0"),
        ("[a](x) [b](y [c](z)", "a b y c"),
        ("a < b < c", "a < b < c"),
        ("[a](b", "a b"),
        ("a ```b``` c ```d", "a c"),
        ("a\n---\nb", "a b"),
    ],
)
def test_unclosed_markup_is_text(tmp_path: Path, text: str, words: str):
    path = tmp_path / "README.md"
    path.write_text(text)
    assert words_of_card(path) == words


@pytest.mark.parametrize("text", [None, "", "---\nlicense: mit\n---\n"])
def test_card_without_text_has_no_words(tmp_path: Path, text: str | None):
    path = tmp_path / "README.md"
    if text is not None:
        path.write_text(text)
    assert words_of_card(path) is None
