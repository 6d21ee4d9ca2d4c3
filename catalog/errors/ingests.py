"""Errors of an ingest that cannot succeed."""

from __future__ import annotations

from catalog.errors.root import CatalogError


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


class GatedRepo(Refused):
    status = 403
    code = "gated_repo"
    title = "Repo is gated"


class ArchiveQuotaExceeded(Refused):
    status = 409
    code = "archive_quota_exceeded"
    title = "Archive quota exceeded"


class ModelBlocked(Refused):
    status = 403
    code = "model_blocked"
    title = "Model blocked"


class NoSupportedWeights(Refused):
    code = "no_supported_weights"
    title = "No supported weights"


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


class QuantizedWeights(Refused):
    code = "quantized_weights"
    title = "Quantized weights"


class ShapeMismatch(Refused):
    code = "shape_mismatch"
    title = "Fine-tune does not fit its base"


class MergeIncompatible(Refused):
    code = "merge_incompatible"
    title = "Adapters cannot be merged"


class BaseUnresolved(Refused):
    code = "base_unresolved"
    title = "Base model unresolved"


class UnsupportedBase(Refused):
    code = "unsupported_base"
    title = "Unsupported base model"


class ModelTooLarge(Refused):
    status = 413
    code = "model_too_large"
    title = "Model too large for the workers"


class NativeLibraryFailed(Refused):
    code = "native_library_failed"
    title = "Native library failed"


class ReaderEnded(CatalogError):
    """The end of the process that read the files of `repo`. It is no `Refused`: no other base is tried instead.

    `base` is the repo and commit of a base if its files alone were read. `counted` is set once the end is counted
    against that base or the repo of the job.
    """

    status = 422
    code = "reader_ended"
    title = "Files could not be read"
    base: tuple[str, str] | None = None
    counted = False

    def __init__(self, message: str, repo: str = "") -> None:
        super().__init__(message)
        self.repo = repo


class ReaderTimedOut(ReaderEnded):
    code = "reader_timed_out"
    title = "Files took too long to read"


class ReaderOutOfMemory(ReaderEnded):
    code = "reader_out_of_memory"
    title = "Files took too much memory to read"


class ReaderCrashed(ReaderEnded):
    code = "reader_crashed"
    title = "Files ended their reader"


class HubTokenExpired(Refused):
    code = "hub_token_expired"
    title = "Hub token expired"


class HubTokenRejected(Refused):
    code = "hub_token_rejected"
    title = "Hub token rejected"


class Quarantined(Refused):
    status = 409
    code = "quarantined"
    title = "Quarantined"


class BaseQuarantined(CatalogError):
    """It is no `Refused`: no other base is tried instead."""

    status = 409
    code = "base_quarantined"
    title = "Base model quarantined"


class ExamplesDeleted(Refused):
    status = 410
    code = "examples_deleted"
    title = "Examples deleted"


class NoCandidates(Refused):
    status = 409
    code = "no_candidates"
    title = "No candidates"
