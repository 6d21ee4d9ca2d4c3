"""All settings. No other module reads environment variables."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from catalog.auth.viewer import KEY_ADVICE, MIN_KEY_LENGTH
from catalog.errors import Misconfigured, NotRunning
from catalog.spaces.contract import PREFERRED_FEATURES


class Settings(BaseSettings):
    """Every setting with its unit and default. `DATABASE_URL`, `REDIS_URL`, `HF_ENDPOINT`, `HF_TOKEN` and
    `ADMIN_API_KEY` have their usual names; all other environment variables are prefixed with `DELTADEX_`.

    Blank settings count as not set, and surrounding whitespace is removed: a line `NAME=` in an environment file sets
    nothing, and a secret read from a file may end with a newline. Raises `Misconfigured` if `ADMIN_API_KEY` or
    `DELTADEX_WEBHOOK_SECRET` has fewer than 20 characters.
    """

    model_config = SettingsConfigDict(env_prefix="DELTADEX_", populate_by_name=True, extra="ignore")

    data_dir: Path = Path(".deltadex")
    database_url: str | None = Field(None, validation_alias="DATABASE_URL")
    redis_url: str | None = Field(None, validation_alias="REDIS_URL")

    host: str = "127.0.0.1"
    port: int = 8000

    hf_endpoint: str = Field("https://huggingface.co", validation_alias="HF_ENDPOINT")
    hf_token: SecretStr | None = Field(None, validation_alias="HF_TOKEN")
    # comma-separated Fernet keys that encrypt users' Hub tokens; None: tokens are rejected
    token_key: SecretStr | None = None
    token_max_age: float = Field(86_400.0, gt=0)  # seconds that a user's encrypted token is kept
    hub_timeout: float = 30.0  # seconds without receiving a byte
    # files per second of all workers together, and a sixth as many API calls; 0: as many as the Hub allows
    hub_rate: float = Field(10.0, ge=0)
    hub_downloads: int = Field(4, ge=1)  # files that one worker downloads at once
    hub_downloads_total: int = Field(16, ge=1)  # files that all workers together download at once
    downloads_budget: int = Field(200 * 2**30, ge=0)  # bytes of disk for downloads; 0: no limit but the disk
    max_file_bytes: int = 20 * 2**30
    max_repo_files: int = 10_000
    pickled_adapters: bool = False  # read `adapter_model.bin`

    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    features: Annotated[tuple[str, ...], NoDecode] = PREFERRED_FEATURES[::-1]  # measured for each model
    layer: int = Field(-1, ge=-1)  # index into the hidden states; -1: after the final norm
    probes: Path | None = None  # a probe set in JSON; None: the default set
    base_aliases: Path | None = None  # JSON object, repo id of a mirror -> original; added to the shipped table
    # bytes of base models kept in memory, and so of the largest model; None: a share of the machine's and the device's
    base_memory: int | None = Field(None, gt=0)
    batch: int = Field(8, ge=1)  # jobs claimed at once, and adapters encoded in one forward pass
    readers: int = Field(2, ge=1)  # processes of a worker that read untrusted files
    reader_seconds: float = Field(30.0, gt=0)  # that one of them may read the files of one repo
    reader_memory: int = Field(2**30, ge=2**26)  # bytes that one of them may take for the files of one repo

    base_max_wait: float = 120.0  # seconds that jobs for resident bases may overtake a job
    max_attempts: int = Field(10, ge=1)
    max_worker_deaths: int = Field(2, ge=2)  # worker deaths before a job is quarantined
    # seconds for one job, or for one group of jobs that are encoded together
    fetch_deadline: float = Field(21_600.0, gt=0)  # including the download of the base
    load_deadline: float = Field(1_800.0, gt=0)  # of a base into memory
    forward_deadline: float = Field(1_800.0, gt=0)
    train_deadline: float = Field(7_200.0, gt=0)  # the run of a task, without what it fetches and loads
    select_deadline: float = Field(7_200.0, gt=0)
    merge_deadline: float = Field(3_600.0, gt=0)
    max_active_jobs: int = Field(10_000, ge=1)  # per API key; all submissions without a key share one quota
    # units of requests a minute per API key, or per address without one (`app.api.rate_limits`); 0: no limit
    rate_limit: int = Field(6_000, ge=0)
    concurrent_requests: int = Field(4, ge=1)  # costly requests that run at once, per API key or address
    statement_timeout: float = Field(10.0, ge=0)  # seconds that a statement of the API may run; 0: no limit
    lock_timeout: float = Field(3.0, ge=0)  # seconds that it may wait for a lock; 0: no limit
    event_retention: float = 86_400.0  # seconds that job events are kept
    audit_retention: float = Field(7_776_000.0, gt=0)  # seconds that acts are kept in the audit log
    job_retention: float = Field(7_776_000.0, gt=0)  # seconds that ended jobs are kept
    result_retention: float = Field(7_776_000.0, gt=0)  # seconds that tasks, merges and selections are kept
    archive_retention: float = Field(2_592_000.0, gt=0)  # seconds that the adapters of tasks and merges are kept
    worker_retention: float = Field(604_800.0, gt=0)  # seconds that the rows of dead workers are kept
    archive_bytes: int = Field(100 * 2**30, ge=0)  # bytes of all archives; 0: no limit
    archive_bytes_per_key: int = Field(20 * 2**30, ge=0)  # 0: no limit
    max_results: int = Field(10_000, ge=1)  # tasks, merges and selections per API key
    retry_base: float = 2.0  # seconds before the first retry; doubles with every retry
    heartbeat_interval: float = 5.0  # seconds
    heartbeat_timeout: float = 30.0  # seconds without a heartbeat until a worker counts as dead
    sweep_interval: float = 5.0  # seconds between sweeps
    redeliver_after: float = 30.0  # seconds until the message of a queued job counts as lost
    visibility_timeout: int = 6 * 3600  # seconds; must exceed the longest job
    feed_interval: float = 0.2  # seconds between polls of the change feed
    index_memory: int = 4 * 2**30  # bytes of indexes that an API process keeps in memory
    index_exact_bytes: int = 64 * 2**20  # spaces with fewer bytes of vectors are searched exactly, in memory

    api_key: SecretStr | None = None  # sent by the command line
    user_token: SecretStr | None = None  # Hub token that the command line sends with submissions
    # the key of the first admin, who creates the others
    admin_api_key: SecretStr | None = Field(None, validation_alias="ADMIN_API_KEY")
    webhook_secret: SecretStr | None = None  # sent by the Hub with each event; None: webhooks are rejected
    anonymous_reading: bool = True  # requests without an API key may read what is public
    # names under which the API answers, besides `localhost` and addresses; `*`: all
    allowed_hosts: Annotated[tuple[str, ...] | None, NoDecode] = None
    crawl_queue: int = Field(1_000, ge=100)  # queued jobs at which crawls pause
    refresh_debounce: float = 30.0  # seconds without new vectors before clusters and map are recomputed
    refresh_share: float = 0.02  # share of a space's models that must have changed before that

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
        length = len(secret.get_secret_value()) if secret is not None else MIN_KEY_LENGTH
        if length < MIN_KEY_LENGTH:  # not a ValueError: pydantic would quote the secret in its message
            alias = cls.model_fields[str(info.field_name)].validation_alias
            name = alias if isinstance(alias, str) else f"DELTADEX_{info.field_name}".upper()
            raise Misconfigured(f"{name} has {length} characters and needs at least {MIN_KEY_LENGTH}. {KEY_ADVICE}")
        return secret

    @field_validator("features", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @property
    def bases_dir(self) -> Path:
        """A folder `OWNER/NAME` in here is used as that base model instead of downloading it."""
        return self.data_dir / "bases"

    @property
    def downloads_dir(self) -> Path:
        return self.data_dir / "downloads"

    @property
    def index_dir(self) -> Path:
        """Published main segments of the indexes, shared by workers (which build them) and API processes."""
        return self.data_dir / "index"

    @property
    def requeue_after(self) -> float:
        """Seconds without a heartbeat after which a worker's jobs are requeued. It is shorter than `heartbeat_timeout`,
        because workers check only once per heartbeat interval.
        """
        return max(self.heartbeat_timeout - self.heartbeat_interval, self.heartbeat_timeout / 2)

    @property
    def admin_key_file(self) -> Path:
        """The admin key that `deltadex up` creates if ADMIN_API_KEY is not set; readable by its user alone."""
        return self.data_dir / "admin.key"

    def cli_key(self, api_url: str) -> str | None:
        """The API key that the command line sends to an API: DELTADEX_API_KEY, ADMIN_API_KEY, or, to the API of this
        data directory alone, the key that `deltadex up` made in it.
        """
        for key in (self.api_key, self.admin_api_key):
            if key is not None:
                return key.get_secret_value()
        if api_url.rstrip("/") != self.api_url():
            return None
        try:
            return self.admin_key_file.read_text().strip() or None
        except OSError:
            return None

    @property
    def run_file(self) -> Path:
        """The file in which a running `deltadex up` publishes its addresses to other commands."""
        return self.data_dir / "run.json"

    def require_database_url(self) -> str:
        """SQLAlchemy URL of Postgres.

        Raises `NotRunning` if neither the environment nor a running `deltadex up` provides one.
        """
        return with_driver(self._require("database_url"))

    def require_redis_url(self) -> str:
        """URL of Redis or Valkey; raises `NotRunning` like `require_database_url`."""
        return self._require("redis_url")

    def api_url(self) -> str:
        """URL of the API: that of the running `deltadex up`, otherwise the one from the settings."""
        return self._running().get("api_url", f"http://{self.host}:{self.port}")

    def _require(self, name: str) -> str:
        value = getattr(self, name) or self._running().get(name)
        if not value:
            raise NotRunning(
                f"Deltadex is not running in {self.data_dir}. Start `deltadex up`, or set {name.upper()} to a server."
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
    """The same URL with the driver that SQLAlchemy should use."""
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url[len(scheme) :]
    return url


@lru_cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
