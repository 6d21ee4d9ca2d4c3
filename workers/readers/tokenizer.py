"""A tokenizer that runs in a reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Encode = Callable[[list[str], Mapping[str, Any]], list[list[int]]]
Decode = Callable[[list[list[int]], Mapping[str, Any]], list[str]]


@dataclass(frozen=True)
class RemoteTokenizer:
    """The `Tokenizer` of a base whose files a reader has read. Each call is a request to a reader."""

    encode: Encode
    decode_rows: Decode
    size: int
    eos_token_id: int | None
    pad_token_id: int | None

    def __len__(self) -> int:
        return self.size

    def __call__(
        self,
        text: str | list[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> Mapping[str, Any]:
        options = {"add_special_tokens": add_special_tokens, "truncation": truncation, "max_length": max_length}
        if isinstance(text, str):
            return {"input_ids": self.encode([text], options)[0]}
        return {"input_ids": self.encode(text, options)}

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        return self.batch_decode([token_ids], skip_special_tokens=skip_special_tokens)[0]

    def batch_decode(self, sequences: list[list[int]], *, skip_special_tokens: bool = False) -> list[str]:
        return self.decode_rows(sequences, {"skip_special_tokens": skip_special_tokens})
