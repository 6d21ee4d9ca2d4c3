"""The only reader of the environment."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from catalog.auth.viewer import LEAST_KEY, MAKE_A_KEY
from catalog.errors import Misconfigured, NotRunning
from catalog.spaces.contract import PREFERRED


class Settings(BaseSettings):
    """Every setting, its unit and its default. `DATABASE_URL`, `REDIS_URL`, `HF_ENDPOINT` and `HF_TOKEN` keep the
    names that everybody gives them; all others are prefixed with `DELTADEX_`.

    A setting that is blank counts as not set, and space around one is not part of it: a line `NAME=` in an environment
    file sets nothing, and a secret that was read from a file may end with a newline. Raises `Misconfigured` for an
    `ADMIN_API_KEY` or a `DELTADEX_WEBHOOK_SECRET` of fewer than 20 characters.
    """

    model_config = SettingsConfigDict(env_prefix="DELTADEX_", populate_by_name=True, extra="ignore")

    data_dir: Path = Path(".deltadex")
    database_url: str | None = Field(None, validation_alias="DATABASE_URL")
    redis_url: str | None = Field(None, validation_alias="REDIS_URL")

    host: str = "127.0.0.1"
    port: int = 8000

    hf_endpoint: str = Field("https://huggingface.co", validation_alias="HF_ENDPOINT")
    hf_token: SecretStr | None = Field(None, validation_alias="HF_TOKEN")
    token_key: SecretStr | None = None  # Fernet keys, with commas, that users' tokens are sealed with; without, refused
    token_max_age: float = Field(86_400.0, gt=0)  # seconds for which a user's token is kept, sealed
    hub_timeout: float = 30.0  # seconds without a byte
    hub_rate: float = Field(10.0, ge=0)  # requests a second of all workers together; 0: what the Hub itself allows
    hub_downloads: int = Field(4, ge=1)  # files that a worker downloads at once
    hub_downloads_all: int = Field(16, ge=1)  # and all workers together
    downloads_budget: int = Field(200 * 2**30, ge=0)  # bytes that downloads may take; 0: what the disk has
    max_file_bytes: int = 20 * 2**30
    max_repo_files: int = 10_000

    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    features: Annotated[tuple[str, ...], NoDecode] = PREFERRED[::-1]  # what a worker measures of each model
    layer: int = Field(-1, ge=-1)  # of the hidden states that are read; -1: after the final norm
    probes: Path | None = None  # a probe set in JSON; the default set without
    base_aliases: Path | None = None  # JSON object: mirror's repo id -> original's, added to the shipped table
    base_memory: int = 16 * 2**30  # bytes of base models kept in memory
    batch: int = Field(8, ge=1)  # jobs claimed, and adapters encoded, at once

    base_patience: float = 120.0  # seconds that a job may wait because others have their base in memory
    max_attempts: int = Field(10, ge=1)
    deadly: int = Field(2, ge=2)  # workers that die of a job before it is quarantined
    max_active_jobs: int = Field(10_000, ge=1)  # of one API key; all without a key are one
    events_kept: float = 86_400.0  # seconds for which the events of jobs can be read again
    retry_base: float = 2.0  # seconds before the first retry, doubled for each further one
    heartbeat_interval: float = 5.0  # seconds
    heartbeat_limit: float = 30.0  # seconds without a heartbeat before a worker counts as dead
    sweep_interval: float = 5.0  # seconds between sweeps
    ring_again_after: float = 30.0  # seconds before a queued job's message counts as lost
    visibility_timeout: int = 6 * 3600  # seconds; above the longest job
    feed_interval: float = 0.2  # seconds between looks at the change feed
    index_memory: int = 4 * 2**30  # bytes of indexes that an API process keeps loaded
    index_exact_bytes: int = 64 * 2**20  # a space with fewer bytes of vectors is searched exactly, from memory

    api_key: SecretStr | None = None  # sent by the command line; whose quota counts what it submits
    user_token: SecretStr | None = None  # sent by the command line with what it submits; for what its owner may read
    admin_api_key: SecretStr | None = Field(None, validation_alias="ADMIN_API_KEY")  # without: admins are on loopback
    webhook_secret: SecretStr | None = None  # what the Hub sends with each event; without, its webhook is refused
    crawl_queue: int = Field(1_000, ge=100)  # jobs that may wait before crawls pause for the workers
    refit_quiet: float = 30.0  # seconds without a new vector before clusters and map are made anew
    refit_share: float = 0.02  # of a space's models that must have changed before that

    @model_validator(mode="before")
    @classmethod
    def _drop_blank(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        stripped = {name: _strip(value) for name, value in values.items()}
        return {name: value for name, value in stripped.items() if not _is_empty(value)}

    @field_validator("admin_api_key", "webhook_secret")
    @classmethod
    def _require_length(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        length = len(secret.get_secret_value()) if secret is not None else LEAST_KEY
        if length < LEAST_KEY:  # no ValueError: pydantic would quote the secret in its message
            alias = cls.model_fields[str(info.field_name)].validation_alias
            name = alias if isinstance(alias, str) else f"DELTADEX_{info.field_name}".upper()
            raise Misconfigured(
                f"{name} has {length} characters, and {LEAST_KEY} are the fewest that protect anything. {MAKE_A_KEY}"
            )
        return secret

    @field_validator("features", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value

    @property
    def bases_dir(self) -> Path:
        """A folder `OWNER/NAME` in here stands for that base model in place of the Hub's."""
        return self.data_dir / "bases"

    @property
    def downloads_dir(self) -> Path:
        return self.data_dir / "downloads"

    @property
    def index_dir(self) -> Path:
        """Published main segments of the indexes; shared by the workers that build and the API processes."""
        return self.data_dir / "index"

    @property
    def silence(self) -> float:
        """Seconds without a heartbeat after which jobs are taken back, so that they run again within the limit: who
        looks does so once a heartbeat.
        """
        return max(self.heartbeat_limit - self.heartbeat_interval, self.heartbeat_limit / 2)

    @property
    def run_file(self) -> Path:
        """Where a running `deltadex up` tells other commands its addresses."""
        return self.data_dir / "run.json"

    def require_database_url(self) -> str:
        """SQLAlchemy URL of Postgres.

        Raises `NotRunning` where neither the environment nor a running `deltadex up` gives one.
        """
        return with_driver(self._require("database_url"))

    def require_redis_url(self) -> str:
        """URL of Redis or Valkey; raises `NotRunning` like `require_database_url`."""
        return self._require("redis_url")

    def api_url(self) -> str:
        """Address of the API: the running `deltadex up`'s, or the one that the settings give."""
        return self._running().get("api_url", f"http://{self.host}:{self.port}")

    def _require(self, name: str) -> str:
        value = getattr(self, name) or self._running().get(name)
        if not value:
            raise NotRunning(
                f"Nothing runs in {self.data_dir}: start `deltadex up`, or set {name.upper()} to a server of yours."
            )
        return value

    def _running(self) -> dict[str, str]:
        try:
            content = json.loads(self.run_file.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _strip(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return SecretStr(value.get_secret_value().strip())
    return value.strip() if isinstance(value, str) else value


def _is_empty(value: Any) -> bool:
    return isinstance(value, str | SecretStr) and not len(value)


def with_driver(url: str) -> str:
    """The same address, naming the driver that SQLAlchemy is to use."""
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url[len(scheme) :]
    return url


@lru_cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
