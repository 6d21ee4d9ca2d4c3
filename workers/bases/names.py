"""Base model names as adapter configs, model cards and users write them, read as repo ids."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from catalog.errors import InvalidRevision
from catalog.models.repo_ref import REPO_ID_PART, RepoRef, is_base_id

_LOCAL_PATH = re.compile(r"[/~.]|[A-Za-z]:[/\\]|.*\\")
# the Hub client's own folder names
_HUB_CACHE = re.compile(
    rf"models--(?:({REPO_ID_PART})--)?({REPO_ID_PART})(?:[/\\]snapshots[/\\]([0-9a-f]{{40}}))?(?=[/\\]|$)"
)
# ModelScope's client writes a dot as three underscores, and some versions also the slash of a repo id
_MODELSCOPE_CACHE = re.compile(r"modelscope[/\\](?:hub[/\\](?:models[/\\])?|models[/\\])(?:\._____temp[/\\])?(.+)")
_MODELSCOPE_FOLDER = re.compile(r"(?:^|[/\\])((?:[\w.-]+[/\\])?[\w.-]+___[\w.-]+)(?=[/\\]|$)")
_MODELSCOPE_DOT = re.compile(r"(?<=\d)___(?=\d)")
_ADDRESSES = (
    re.compile(r"(?:https?://(?:[^/@]*@)?)?(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/(.+)"),
    re.compile(r"https?://(?:[\w-]+\.)*(?:huggingface|hf-mirror|hf)\.[\w.-]+(?::\d+)?/(.+)"),
    re.compile(r"https?://(?:www\.)?modelscope\.(?:cn|ai)/(.+)"),
    re.compile(r"hf:/+(.+)"),
)
_OTHER_ADDRESS = re.compile(r"([A-Za-z][\w+.-]{1,20}):/")
_OTHER_KINDS = {"datasets": "dataset", "spaces": "Space", "collections": "collection"}
_PAGES_OF_A_REVISION = frozenset({"tree", "blob", "raw", "resolve", "commit", "commits", "revision"})
_OTHER_PAGES = frozenset({"discussions", "edit", "settings", "files", "summary", "main"})
_MAIN = frozenset({"", "main", "master", "HEAD"})  # of a repo whose newest commit is meant
_NOTEBOOKS = {"/kaggle/": "a Kaggle notebook", "/content/": "a Colab notebook"}
MAX_CLAIM_CHARACTERS = 200  # characters of a claim in messages
_MAX_PATH_CHARACTERS = 4096  # characters of a path; longer claims are not searched


@dataclass(frozen=True)
class ClaimedRepo:
    """A claim as it was read: `name` is a repo id, `revision` the branch, tag or commit in an address or a cache path.

    If the claim names no repo, `problem` says why, and `name` is the shortened claim.
    """

    name: str
    revision: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A base to try, at a revision (None: the pinned or newest commit), and the evidence for it.

    `source` is that of the claim, or "alias", "mirror", "root" or "shapes" (see `ResolvedBase`).
    """

    repo: str
    source: str
    revision: str | None = None


def read_claim(claim: object) -> ClaimedRepo:
    """Read a repo id, the address of a repo (on the Hub, a mirror of it, or ModelScope), or a path in the cache of the
    Hub's or ModelScope's client.
    """
    text = claim.strip() if isinstance(claim, str) else ""
    shortened = str(claim)[:MAX_CLAIM_CHARACTERS]
    if len(text) > _MAX_PATH_CHARACTERS:
        return ClaimedRepo(shortened, problem="is not the id of a repo")
    if cached := _HUB_CACHE.search(text):
        owner, name, commit = cached.groups()
        return ClaimedRepo(f"{owner}/{name}" if owner else name, commit)
    parts = _address_parts(text) or _modelscope_parts(text)
    if not parts and (problem := _location(text)):
        return ClaimedRepo(shortened, problem=problem)
    return _of_parts(parts or _parts(text), shortened)


def read_revision(revision: object) -> tuple[str | None, str | None]:
    """Returns the revision in a config (None: the newest commit), and None or a reason why it cannot be one."""
    text = revision.strip() if isinstance(revision, str) else ""
    if text in _MAIN:
        return None, None
    try:
        return RepoRef("owner/name", text).revision, None
    except InvalidRevision:
        return None, f"{text[:80]!r} is not a branch, tag or commit"


def _location(text: str) -> str | None:
    """What a claim is that lies somewhere else than on the Hub; None if it may be a repo id."""
    for folder, notebook in _NOTEBOOKS.items():
        if text.startswith(folder):
            return f"is a folder of {notebook}"
    if _LOCAL_PATH.match(text) or text.startswith("file:"):
        return "is a folder of the machine that trained it"
    if other := _OTHER_ADDRESS.match(text):
        return f"is an address ({other[1]}:) that is not on the Hub"
    return None


def _address_parts(text: str) -> list[str]:
    addresses = (pattern.match(text) for pattern in _ADDRESSES)
    return next((_parts(address[1]) for address in addresses if address), [])


def _parts(path: str) -> list[str]:
    """The parts of an address's path, without query and fragment."""
    return [unquote(part) for part in re.split(r"[?#]", path, maxsplit=1)[0].split("/") if part]


def _modelscope_parts(text: str) -> list[str]:
    """Owner and name in a path of ModelScope's client; empty if it is none."""
    if not (folder := _MODELSCOPE_CACHE.search(text) or _MODELSCOPE_FOLDER.search(text)):
        return []
    parts = [_MODELSCOPE_DOT.sub(".", part) for part in re.split(r"[/\\]", folder[1]) if part][:2]
    return parts[-1].split("___", 1) if parts and "___" in parts[-1] else parts


def _of_parts(parts: list[str], shortened: str) -> ClaimedRepo:
    """The claim of an address's parts, such as `OWNER/NAME/tree/REVISION/file`."""
    if parts[:2] == ["api", "models"]:
        parts = parts[2:]
    elif len(parts) > 2 and parts[0] in ("models", "model"):
        parts = parts[1:]
    if len(parts) > 1 and parts[0] in _OTHER_KINDS:
        return ClaimedRepo(shortened, problem=f"is the address of a {_OTHER_KINDS[parts[0]]}")
    size = 1 if len(parts) > 1 and parts[1] in _PAGES_OF_A_REVISION else 2
    name, at, revision = "/".join(parts[:size]).removesuffix(".git").partition("@")
    page = parts[size:]
    if page and page[0] in _PAGES_OF_A_REVISION:
        revision = "/".join(page[1:4] if page[1:2] == ["refs"] else page[1:2])
    elif page and page[0] not in _OTHER_PAGES:
        return ClaimedRepo(shortened, problem="is not the id of a repo")
    if not is_base_id(name) or (at and not revision):
        return ClaimedRepo(shortened, problem="is not the id of a repo")
    return ClaimedRepo(name, read_revision(revision)[0])
