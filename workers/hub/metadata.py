"""Metadata of a repo on the Hub. A mirror may return fewer fields, and the fields of a card are untrusted input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from huggingface_hub import ModelInfo

from catalog.hub_sync.repository.listings import ListedRepo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository.models import Metadata

MAX_TAGS = 200
MAX_TAG_CHARACTERS = 200
MAX_BASES = 50  # that are read of one card
RELATIONS = ("quantized", "finetune", "adapter", "merge")  # of a repo to its base
_CARD_FIELDS = ("base_model", "base_model_relation", "license", "license_name", "datasets", "language")

# per value
_DTYPE_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("F4", "I4", "U4"), 4),
}
_UNKNOWN_DTYPE_BITS = 8


def metadata(info: ModelInfo) -> Metadata:
    card = info.card_data
    license = _license(card or {})
    hub_id = getattr(info, "_id", None)
    return Metadata(
        license=license,
        tags=_texts(info.tags),
        datasets=_texts(card.get("datasets") if card else None),
        languages=_texts(card.get("language") if card else None),
        downloads=info.downloads,
        likes=info.likes,
        hub_created_at=info.created_at,
        hub_updated_at=info.last_modified,
        hub_id=hub_id if isinstance(hub_id, str) and _storable(hub_id) else None,
    )


def _license(card: Any) -> str | None:
    """The license of a card; the author's name for it if the Hub has none ("other")."""
    license = _only_value(card.get("license"))
    if license == "other":
        license = _only_value(card.get("license_name")) or license
    return license if license and _storable(license) else None


def read_info(item: dict[str, object]) -> ModelInfo:
    """Parse the Hub's JSON for a repo. Raises `ValueError`, and what the library raises for malformed JSON."""
    if not isinstance(item, dict):
        raise ValueError("it is not a JSON object")
    card = item.get("cardData")
    # the library takes quadratic time for a card's tags and results, which are not needed
    used_fields = {key: card[key] for key in _CARD_FIELDS if key in card} if isinstance(card, dict) else None
    return ModelInfo(**item | {"cardData": used_fields})


def parse_entry(item: dict[str, object]) -> ListedRepo:
    """Parse an entry of the Hub's list. Raises what `read_info` raises, and `InvalidRepoId`."""
    info = read_info(item)
    bases = card_bases(info) or _resolved_bases(info.base_models)
    base = bases[0] if len(bases) == 1 else None  # the common root of several is known once their cards are read
    return ListedRepo(
        RepoRef(info.id).repo_id,
        sha=info.sha if isinstance(info.sha, str) and _storable(info.sha) else None,
        metadata=metadata(info),
        base=base if base and _storable(base) else None,
        size=_size(info),
        hidden=bool(info.private or info.disabled),
        gated=bool(info.gated),
    )


def card_bases(info: ModelInfo) -> tuple[str, ...]:
    """The bases that a card names in `base_model`, of which merges have several, without repetition."""
    value = info.card_data.get("base_model") if info.card_data else None
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(dict.fromkeys(base for base in values[:MAX_BASES] if isinstance(base, str) and base))


def base_relation(info: ModelInfo) -> str | None:
    """How a repo relates to its base: "quantized", "finetune", "adapter" or "merge", as the card says or the Hub has
    found; None if neither does.
    """
    said = info.card_data.get("base_model_relation") if info.card_data else None
    if isinstance(said, str):
        return said
    tags = [tag.split(":") for tag in info.tags or () if isinstance(tag, str) and tag.startswith("base_model:")]
    return next((tag[1] for tag in tags if len(tag) > 2 and tag[1] in RELATIONS), None)


def _resolved_bases(value: object) -> tuple[str, ...]:
    """The bases in the Hub's own field `baseModels`: `{"relation": ..., "models": [{"id": ...}]}`."""
    models = value.get("models") if isinstance(value, dict) else None
    names = (
        [item.get("id") for item in models[:MAX_BASES] if isinstance(item, dict)] if isinstance(models, list) else []
    )
    return tuple(name for name in names if isinstance(name, str) and name)


def _only_value(value: object) -> str | None:
    """The string in a card field that has one string or a list of one; None for others."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else None


def _size(info: ModelInfo) -> int | None:
    """Bytes of the weights, or of the whole repo if the Hub does not give the former, as for adapters."""
    weights = info.safetensors.parameters if info.safetensors else None
    if weights:
        return sum(count * _DTYPE_BITS.get(dtype, _UNKNOWN_DTYPE_BITS) for dtype, count in weights.items()) // 8
    return info.used_storage


def _texts(value: object) -> tuple[str, ...]:
    """The strings of a field that is one string or a list of strings."""
    words: Iterable[object] = [value] if isinstance(value, str) else value if isinstance(value, list) else ()
    return tuple(word for word in words if isinstance(word, str) and _storable(word))[:MAX_TAGS]


def _storable(text: str) -> bool:
    """Whether Postgres can store a text: it does not accept NUL."""
    return 0 < len(text) <= MAX_TAG_CHARACTERS and "\0" not in text
