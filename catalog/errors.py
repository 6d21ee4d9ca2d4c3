"""The error tree. Each class carries its HTTP status and a stable code; the sentence tells the person what to do.

CatalogError
├── InvalidInput                    the request or the file given is malformed
│   ├── InvalidRepoId, InvalidRevision, InvalidCursor, InvalidVector, InvalidProbeSet
│   └── UnknownFeature, InvalidLabels, BodyTooLarge
├── NotFound                        nothing of that name here
│   └── ModelNotFound, JobNotFound, SpaceNotFound, ClusterNotFound, RunNotFound, CrawlNotFound
├── Conflict                        well formed, but at odds with what is stored
│   ├── NotIndexed, NoShift, SpaceRequired, SpaceMismatch, NameTaken, AlreadyRunning
│   └── NotClustered, NotMapped, GeometryNotFitted, CrawlOver, JobOver, NotRetriable
├── Refused                         an ingest that can never succeed as it stands; stored on the job, not retried
│   ├── RepoNotFound, RevisionNotFound, RepoGated
│   ├── NothingToEmbed, PickledWeights, RemoteCode, UnsafePath, TooManyFiles, FileTooLarge, FolderUnreadable
│   ├── CorruptWeights, NonFiniteWeights, NonFiniteVector
│   ├── InvalidAdapterConfig, InvalidModelConfig, UnsupportedAdapter, QuantisedWeights
│   └── ShapeMismatch, BaseUnresolved, UnsupportedBase, WorkerLost, Quarantined
├── Forbidden                       not for whoever asks
│   └── AdminOnly, AdminKeyRequired, WebhookOff, WebhookSecretWrong
├── Misconfigured                   this machine lacks what the settings ask for
│   └── MissingExtra, ServerFailed
└── Unavailable                     transient; an ingest is retried with backoff
    ├── HubUnavailable, HubRateLimited, DownloadStopped, DiskFull, OutOfMemory, DeadlineExceeded, BaseDisturbed
    ├── TooManyJobs
    └── DatabaseUnavailable, IndexNotLoaded, IndexDamaged, NotRunning
"""

from __future__ import annotations


class CatalogError(Exception):
    """Root of everything that Deltadex raises on purpose.

    `status` is the HTTP status, `code` the stable name that clients may match on, and `str(error)` a sentence
    for a person.
    """

    status = 500
    code = "internal_error"
    title = "Internal error"
    transient = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(CatalogError):
    status = 422
    code = "invalid_input"
    title = "Invalid input"


class InvalidRepoId(InvalidInput):
    code = "invalid_repo_id"
    title = "Invalid repo id"


class InvalidRevision(InvalidInput):
    code = "invalid_revision"
    title = "Invalid revision"


class InvalidCursor(InvalidInput):
    code = "invalid_cursor"
    title = "Invalid cursor"


class InvalidVector(InvalidInput):
    code = "invalid_vector"
    title = "Invalid vector"


class InvalidProbeSet(InvalidInput):
    code = "invalid_probe_set"
    title = "Invalid probe set"


class UnknownFeature(InvalidInput):
    code = "unknown_feature"
    title = "Unknown feature"


class InvalidLabels(InvalidInput):
    code = "invalid_labels"
    title = "Invalid labels"


class BodyTooLarge(InvalidInput):
    status = 413
    code = "body_too_large"
    title = "Request body too large"


class NotFound(CatalogError):
    status = 404
    code = "not_found"
    title = "Not found"


class ModelNotFound(NotFound):
    code = "model_not_found"
    title = "Model not found"


class JobNotFound(NotFound):
    code = "job_not_found"
    title = "Job not found"


class SpaceNotFound(NotFound):
    code = "space_not_found"
    title = "Space not found"


class ClusterNotFound(NotFound):
    code = "cluster_not_found"
    title = "Cluster not found"


class RunNotFound(NotFound):
    code = "run_not_found"
    title = "Run not found"


class CrawlNotFound(NotFound):
    code = "crawl_not_found"
    title = "Crawl not found"


class Conflict(CatalogError):
    status = 409
    code = "conflict"
    title = "Conflict"


class NotIndexed(Conflict):
    code = "not_indexed"
    title = "Model not indexed"


class NoShift(Conflict):
    code = "no_shift"
    title = "Model does not shift its base"


class SpaceRequired(Conflict):
    code = "space_required"
    title = "Space required"


class SpaceMismatch(Conflict):
    code = "space_mismatch"
    title = "Vectors of different spaces"


class NameTaken(Conflict):
    code = "name_taken"
    title = "Name taken"


class AlreadyRunning(Conflict):
    code = "already_running"
    title = "Already running"


class NotClustered(Conflict):
    code = "not_clustered"
    title = "Not clustered yet"


class CrawlOver(Conflict):
    code = "crawl_over"
    title = "Crawl is over"


class NotMapped(Conflict):
    code = "not_mapped"
    title = "No map yet"


class GeometryNotFitted(Conflict):
    code = "geometry_not_fitted"
    title = "Geometry not fitted yet"


class JobOver(Conflict):
    code = "job_over"
    title = "Job is over"


class NotRetriable(Conflict):
    code = "not_retriable"
    title = "Nothing to retry"


class Forbidden(CatalogError):
    status = 403
    code = "forbidden"
    title = "Forbidden"


class AdminOnly(Forbidden):
    code = "admin_only"
    title = "For administrators only"


class AdminKeyRequired(Forbidden):
    status = 401
    code = "admin_key_required"
    title = "Admin key required"


class WebhookOff(Forbidden):
    code = "webhook_off"
    title = "Webhook is off"


class WebhookSecretWrong(Forbidden):
    status = 401
    code = "webhook_secret_wrong"
    title = "Webhook secret missing or wrong"


class Refused(CatalogError):
    status = 422
    code = "refused"
    title = "Refused"


class RepoNotFound(Refused):
    status = 404
    code = "repo_not_found"
    title = "Repo not found on the Hub"


class RevisionNotFound(Refused):
    status = 404
    code = "revision_not_found"
    title = "Revision not found on the Hub"


class RepoGated(Refused):
    status = 403
    code = "repo_gated"
    title = "Repo is gated"


class NothingToEmbed(Refused):
    code = "nothing_to_embed"
    title = "No adapter or weights"


class PickledWeights(Refused):
    code = "pickled_weights"
    title = "Pickled weights"


class RemoteCode(Refused):
    code = "remote_code"
    title = "Remote code"


class UnsafePath(Refused):
    code = "unsafe_path"
    title = "Unsafe path"


class TooManyFiles(Refused):
    status = 413
    code = "too_many_files"
    title = "Too many files"


class FileTooLarge(Refused):
    status = 413
    code = "file_too_large"
    title = "File too large"


class FolderUnreadable(Refused):
    code = "folder_unreadable"
    title = "Folder unreadable"


class CorruptWeights(Refused):
    code = "corrupt_weights"
    title = "Corrupt safetensors file"


class NonFiniteWeights(Refused):
    code = "non_finite_weights"
    title = "NaN or infinity in the weights"


class NonFiniteVector(Refused):
    code = "non_finite_vector"
    title = "NaN or infinity in the vector"


class InvalidAdapterConfig(Refused):
    code = "invalid_adapter_config"
    title = "Invalid adapter config"


class InvalidModelConfig(Refused):
    code = "invalid_model_config"
    title = "Invalid model config"


class UnsupportedAdapter(Refused):
    code = "unsupported_adapter"
    title = "Unsupported adapter"


class QuantisedWeights(Refused):
    code = "quantised_weights"
    title = "Quantised weights"


class ShapeMismatch(Refused):
    code = "shape_mismatch"
    title = "Fine-tune does not fit its base"


class BaseUnresolved(Refused):
    code = "base_unresolved"
    title = "Base model unresolved"


class UnsupportedBase(Refused):
    code = "unsupported_base"
    title = "Unsupported base model"


class Misconfigured(CatalogError):
    code = "misconfigured"
    title = "Misconfigured"


class MissingExtra(Misconfigured):
    code = "missing_extra"
    title = "Package missing"


class ServerFailed(Misconfigured):
    code = "server_failed"
    title = "Embedded server failed"


class WorkerLost(Refused):
    code = "worker_lost"
    title = "Worker lost"


class Quarantined(Refused):
    status = 409
    code = "quarantined"
    title = "Quarantined"


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
    title = "Hub rate limit"


class DownloadStopped(Unavailable):
    code = "download_stopped"
    title = "Download stopped"


class TooManyJobs(Unavailable):
    status = 429
    code = "too_many_jobs"
    title = "Too many active jobs"


class DiskFull(Unavailable):
    code = "disk_full"
    title = "Disk full"


class OutOfMemory(Unavailable):
    code = "out_of_memory"
    title = "Out of memory"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"
    title = "Deadline exceeded"


class BaseDisturbed(Unavailable):
    code = "base_disturbed"
    title = "Base model disturbed"


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    title = "Database unavailable"


class IndexNotLoaded(Unavailable):
    code = "index_not_loaded"
    title = "Index not loaded"


class IndexDamaged(Unavailable):
    code = "index_damaged"
    title = "Index damaged"


class NotRunning(Unavailable):
    code = "not_running"
    title = "Deltadex is not running"


def described(error: Exception) -> tuple[str, str]:
    """The code and the sentence that are stored of an error; one that was not raised on purpose has only its repr."""
    return (error.code, str(error)) if isinstance(error, CatalogError) else (CatalogError.code, repr(error))
