"""What the Hub tells of a repo beside its files; a mirror may tell less, and anybody may write anything into a card."""

from __future__ import annotations

from collections.abc import Iterable

from huggingface_hub import ModelInfo

from catalog.hub_sync.repository.listings import Listed
from catalog.models.repo_ref import RepoRef
from catalog.models.repository.models import Metadata

MAX_TAGS = 200
MAX_TAG = 200  # characters
_OF_THE_CARD = ("base_model", "license", "datasets", "language")

_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}  # of a parameter; 1 for all others


def metadata(info: ModelInfo) -> Metadata:
    card = info.card_data
    licence = the_only(card.get("license")) if card else None
    hub_id = getattr(info, "_id", None)
    return Metadata(
        licence=licence if licence and _storable(licence) else None,
        tags=_texts(info.tags),
        datasets=_texts(card.get("datasets") if card else None),
        languages=_texts(card.get("language") if card else None),
        downloads=info.downloads,
        likes=info.likes,
        hub_created_at=info.created_at,
        hub_updated_at=info.last_modified,
        hub_id=hub_id if isinstance(hub_id, str) and _storable(hub_id) else None,
    )


def read_info(item: dict[str, object]) -> ModelInfo:
    """What the Hub's JSON says of a repo. Raises `ValueError`, and what a malformed one makes the library raise."""
    if not isinstance(item, dict):
        raise ValueError("it is not a JSON object")
    card = item.get("cardData")
    # the library goes through a card's own tags and results, in a time that is quadratic in their number
    read = {key: card[key] for key in _OF_THE_CARD if key in card} if isinstance(card, dict) else None
    return ModelInfo(**item | {"cardData": read})


def listed(item: dict[str, object]) -> Listed:
    """An entry of the Hub's list. Raises what `read_info` does, and `InvalidRepoId`."""
    info = read_info(item)
    told = metadata(info)
    base = the_only(info.card_data.get("base_model")) if info.card_data else None
    return Listed(
        RepoRef(info.id).repo_id,
        sha=info.sha if isinstance(info.sha, str) and _storable(info.sha) else None,
        metadata=told,
        base=base if base and _storable(base) else None,
        size=_size(info),
        hidden=bool(info.private or info.disabled),
    )


def the_only(base: object) -> str | None:
    """A card may list several bases (a merge); then none of them is the base."""
    if isinstance(base, list) and len(base) == 1:
        base = base[0]
    return base if isinstance(base, str) else None


def _size(info: ModelInfo) -> int | None:
    """Bytes of the weights; of all that a repo holds where the Hub does not tell them apart, as with adapters."""
    weights = info.safetensors.parameters if info.safetensors else None
    if weights:
        return sum(count * _BYTES.get(dtype, 1) for dtype, count in weights.items())
    return info.used_storage


def _texts(told: object) -> tuple[str, ...]:
    """What may stand as one word or as a list of them."""
    words: Iterable[object] = [told] if isinstance(told, str) else told if isinstance(told, list) else ()
    return tuple(word for word in words if isinstance(word, str) and _storable(word))[:MAX_TAGS]


def _storable(text: str) -> bool:
    """Postgres takes no NUL."""
    return 0 < len(text) <= MAX_TAG and "\0" not in text
