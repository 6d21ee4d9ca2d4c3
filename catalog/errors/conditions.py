"""Transient errors, and errors of the machine and its configuration."""

from __future__ import annotations

from catalog.errors.root import CatalogError


class Misconfigured(CatalogError):
    code = "misconfigured"
    title = "Misconfigured"


class MissingExtra(Misconfigured):
    code = "missing_extra"
    title = "Package missing"


class ServerFailed(Misconfigured):
    code = "server_failed"
    title = "Embedded server failed"


class Unavailable(CatalogError):
    status = 503
    code = "unavailable"
    title = "Unavailable"
    transient = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds


class HubUnavailable(Unavailable):
    code = "hub_unavailable"
    title = "Hub unavailable"


class HubRateLimited(Unavailable):
    status = 429
    code = "hub_rate_limited"
    title = "Hub rate limit reached"


class HubTokenInvalid(Unavailable):
    code = "hub_token_invalid"
    title = "The service's Hub token is invalid"


class DownloadStopped(Unavailable):
    code = "download_stopped"
    title = "Download stopped"


class HubTokenUnreadable(Unavailable):
    code = "hub_token_unreadable"
    title = "Hub token cannot be decrypted"


class TooManyJobs(Unavailable):
    status = 429
    code = "too_many_jobs"
    title = "Too many active jobs"


class RateLimited(Unavailable):
    status = 429
    code = "rate_limited"
    title = "Too many requests"


class DiskFull(Unavailable):
    code = "disk_full"
    title = "Disk full"


class OutOfMemory(Unavailable):
    code = "out_of_memory"
    title = "Out of memory"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"
    title = "Deadline exceeded"


class WorkerLost(Unavailable):
    code = "worker_lost"
    title = "Worker lost"


class EncoderContractMismatch(Unavailable):
    code = "encoder_contract_mismatch"
    title = "Worker has a different encoder contract"


class BaseModelCorrupted(Unavailable):
    code = "base_model_corrupted"
    title = "Base model corrupted"


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    title = "Database unavailable"


class DatabaseBusy(DatabaseUnavailable):
    """A statement ran or waited for too long, or no connection was free in time."""

    code = "database_busy"
    title = "Database busy"


class SearchBusy(Unavailable):
    code = "search_busy"
    title = "Too many large searches"


class TooManyAtOnce(Unavailable):
    status = 429
    code = "too_many_at_once"
    title = "Too many requests at once"


class IndexNotLoaded(Unavailable):
    code = "index_not_loaded"
    title = "Index not loaded"


class IndexDamaged(Unavailable):
    code = "index_damaged"
    title = "Index damaged"


class NotRunning(Unavailable):
    code = "not_running"
    title = "Deltadex is not running"
