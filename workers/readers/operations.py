"""What a reader does, in its own process, with JSON in and out. Paths are texts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerFast

import catalog.errors
from catalog.errors import CatalogError, InvalidModelConfig, Refused
from workers.encoding.lm_class import headless
from workers.encoding.model_loading import clean_view, load_config
from workers.encoding.resident_base import read_base
from workers.encoding.tokenizer import Tokenizer, load_tokenizer
from workers.finetunes.card import bases_in_card
from workers.finetunes.contents import FetchHeader
from workers.finetunes.json_file import read_object
from workers.finetunes.pickled import convert
from workers.finetunes.reading import read_contents
from workers.finetunes.repo_files import Choice
from workers.finetunes.shape_fit import fetched_shapes, weight_shapes
from workers.readers.messages import contents_as_json

MAX_TOKENIZERS = 2  # kept in one process

ERRORS: Mapping[str, type[CatalogError]] = {
    error.code: error
    for error in vars(catalog.errors).values()
    if isinstance(error, type) and issubclass(error, CatalogError)
}

Operation = Callable[..., Any]


def import_common_classes() -> None:
    """Import what transformers imports at the first use of a model and a tokenizer."""
    config = AutoConfig.for_model("llama", vocab_size=1, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    headless(config)
    _ = PreTrainedTokenizerFast  # whose module is imported here


class Operations:
    """The operations by name. `fetch_header` asks the worker for a header."""

    def __init__(self, fetch_header: FetchHeader) -> None:
        self._fetch_header = fetch_header
        self._tokenizers: OrderedDict[str, Tokenizer] = OrderedDict()

    def run(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """The result of an operation, as JSON. Raises any error."""
        operations: dict[str, Operation] = {
            "screen_finetune": self.screen_finetune,
            "read_finetune": self.read_finetune,
            "read_base": self.read_base,
            "weight_shapes": self.weight_shapes,
            "fetched_shapes": self.fetched_shapes,
            "read_object": self.read_object,
            "bases_in_card": self.bases_in_card,
            "encode": self.encode,
            "decode": self.decode,
            "convert_pickled": self.convert_pickled,
        }
        return operations[operation](**arguments)

    def screen_finetune(self, top: str, folder: str, paths: list[str]) -> Any:
        contents, _ = read_contents(Path(top), Choice(folder, tuple(paths)), self._fetch_header)
        return contents_as_json(contents)

    def read_finetune(self, top: str, folder: str, paths: list[str], max_file_bytes: int) -> Any:
        choice = Choice(folder, tuple(paths))
        contents, finetune = read_contents(Path(top), choice, max_file_bytes=max_file_bytes)
        if finetune.kind == "full":
            with clean_view(finetune.folder, finetune.config) as view:
                load_config(view, InvalidModelConfig)
        return contents_as_json(contents)

    def read_base(self, folder: str) -> Any:
        files = read_base(Path(folder))
        self._keep(folder, files.tokenizer)
        tokenizer = files.tokenizer
        return {
            "config": files.config,
            "tokens": len(tokenizer),
            "eos": tokenizer.eos_token_id,
            "pad": tokenizer.pad_token_id,
        }

    def weight_shapes(self, folder: str) -> Any:
        return weight_shapes(Path(folder))

    def fetched_shapes(self, folder: str, names: list[str]) -> Any:
        return fetched_shapes(Path(folder), names, self._fetch_header)

    def read_object(self, path: str, error: str, max_bytes: int) -> Any:
        refused = ERRORS[error]
        assert issubclass(refused, Refused)
        return read_object(Path(path), refused, max_bytes=max_bytes)

    def bases_in_card(self, path: str) -> Any:
        return bases_in_card(Path(path))

    def encode(self, folder: str, texts: list[str], options: dict[str, Any]) -> Any:
        return self._tokenizer(folder)(texts, **options)["input_ids"]

    def decode(self, folder: str, sequences: list[list[int]], options: dict[str, Any]) -> Any:
        return self._tokenizer(folder).batch_decode(sequences, **options)

    def convert_pickled(self, source: str, target: str, max_file_bytes: int) -> Any:
        convert(Path(source), Path(target), max_file_bytes=max_file_bytes)

    def _tokenizer(self, folder: str) -> Tokenizer:
        if folder not in self._tokenizers:
            self._keep(folder, load_tokenizer(Path(folder)))
        self._tokenizers.move_to_end(folder)
        return self._tokenizers[folder]

    def _keep(self, folder: str, tokenizer: Tokenizer) -> None:
        self._tokenizers[folder] = tokenizer
        if len(self._tokenizers) > MAX_TOKENIZERS:
            self._tokenizers.popitem(last=False)
