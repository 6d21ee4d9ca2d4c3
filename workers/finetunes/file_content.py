"""What a file holds that is not what its name says, from its first bytes."""

from __future__ import annotations

import re

START_BYTES = 256  # that are enough to recognize a file

_LFS = re.compile(rb"version https://git-lfs\.")
_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml|error|head|[a-z]+>)", re.IGNORECASE)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_SAVE = "save the weights as safetensors (`save_pretrained`) and submit them."
_MAGIC = (
    (b"PK\x03\x04", f"is a zip archive, such as `torch.save` writes, and not safetensors: {_SAVE}"),
    (b"GGUF", "is a GGUF file, and not safetensors: submit the safetensors that it was converted from."),
    (b"\x89HDF", f"is an HDF5 file, and not safetensors: {_SAVE}"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it and submit the result."),
)


def other_content(start: bytes) -> str | None:
    """What a file holds instead of what its name says, and what to do, as the rest of a sentence that begins with its
    name; None if it is not recognized. `start` are the file's first bytes.
    """
    if not start:
        return "is empty: upload the file again."
    if _LFS.match(start):
        return (
            "is a Git LFS pointer in the place of the file itself: run `git lfs pull` in its folder, or upload the "
            "file, and submit it again."
        )
    if _PICKLE.match(start):
        return f"is a pickle, and not safetensors: {_SAVE}"
    if _PAGE.match(start):
        return f"is an HTML or XML page ({_as_text(start)!r}), such as a server's error: download the file again."
    return next((sentence for magic, sentence in _MAGIC if start.startswith(magic)), None)


def other_weights(start: bytes) -> str | None:
    """The same for a file that should hold weights, where any text is other content."""
    if (sentence := other_content(start)) is not None:
        return sentence
    if text := _as_text(start):
        return f"is a text ({text!r}) and not safetensors, such as a server's error: download the file again."
    return None


def _as_text(start: bytes) -> str:
    """The beginning of a text; empty if the bytes are none."""
    words = " ".join(start[:START_BYTES].decode(errors="ignore").split())
    return words[:60] if len(words) >= 8 and words.isprintable() else ""
