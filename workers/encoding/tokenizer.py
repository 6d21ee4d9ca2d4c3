"""What the encoder needs of a base's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from transformers import AutoTokenizer

from catalog.errors import UnsupportedBase
from catalog.errors.root import first_line

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


class Tokenizer(Protocol):
    """The part of transformers' `PreTrainedTokenizerBase` that is used, with the same names."""

    @property
    def eos_token_id(self) -> int | None: ...

    @property
    def pad_token_id(self) -> int | None: ...

    def __len__(self) -> int: ...

    def __call__(
        self,
        text: str | list[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> Mapping[str, Any]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> Any: ...

    def batch_decode(self, sequences: list[list[int]], *, skip_special_tokens: bool = False) -> list[str]: ...


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder, in this process. Raises `UnsupportedBase`."""
    try:
        return cast(Tokenizer, AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    except Exception as error:  # tokenizer backends raise various classes
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            reason = "it has no tokenizer file; add what the tokenizer's `save_pretrained` writes"
        else:
            reason = first_line(error)
        raise UnsupportedBase(f"The tokenizer of {folder.name} cannot be loaded: {reason}.") from error
