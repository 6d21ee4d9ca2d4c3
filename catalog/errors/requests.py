"""Errors of a request: malformed, about nothing known, at odds with what is stored, not for whoever asks."""

from __future__ import annotations

from catalog.errors.root import CatalogError


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


class InvalidExpression(InvalidInput):
    code = "invalid_expression"
    title = "Invalid expression"


class InvalidName(InvalidInput):
    code = "invalid_name"
    title = "Invalid name"


class InvalidProbeSet(InvalidInput):
    code = "invalid_probe_set"
    title = "Invalid probe set"


class UnknownFeature(InvalidInput):
    code = "unknown_feature"
    title = "Unknown feature"


class InvalidLabels(InvalidInput):
    code = "invalid_labels"
    title = "Invalid labels"


class InvalidExamples(InvalidInput):
    code = "invalid_examples"
    title = "Invalid examples"


class TokenMalformed(InvalidInput):
    code = "token_malformed"
    title = "Not a token"


class WeakKey(InvalidInput):
    code = "weak_key"
    title = "API key too short"


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


class TermNotFound(NotFound):
    code = "term_not_found"
    title = "Term of an expression not found"


class VectorNotFound(NotFound):
    code = "vector_not_found"
    title = "Stored vector not found"


class ClusterNotFound(NotFound):
    code = "cluster_not_found"
    title = "Cluster not found"


class RunNotFound(NotFound):
    code = "run_not_found"
    title = "Run not found"


class CrawlNotFound(NotFound):
    code = "crawl_not_found"
    title = "Crawl not found"


class TaskNotFound(NotFound):
    code = "task_not_found"
    title = "Task not found"


class MergeNotFound(NotFound):
    code = "merge_not_found"
    title = "Merge not found"


class ArchiveNotFound(NotFound):
    code = "archive_not_found"
    title = "Archive not found"


class SelectionNotFound(NotFound):
    code = "selection_not_found"
    title = "Selection not found"


class ReindexNotFound(NotFound):
    code = "reindex_not_found"
    title = "Reindex not found"


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


class AmbiguousTerm(Conflict):
    code = "ambiguous_term"
    title = "Ambiguous term"


class NothingLeft(Conflict):
    code = "nothing_left"
    title = "Nothing left of the sum"


class NameTaken(Conflict):
    code = "name_taken"
    title = "Name taken"


class TaskNotDone(Conflict):
    code = "task_not_done"
    title = "Task not done yet"


class ExamplesNotKept(Conflict):
    code = "examples_not_kept"
    title = "Examples not kept"


class MergeNotDone(Conflict):
    code = "merge_not_done"
    title = "Merge not done yet"


class TooManyVectors(Conflict):
    code = "too_many_vectors"
    title = "Too many stored vectors"


class AlreadyRunning(Conflict):
    code = "already_running"
    title = "Already running"


class NotClustered(Conflict):
    code = "not_clustered"
    title = "Not clustered yet"


class CrawlOver(Conflict):
    code = "crawl_over"
    title = "Crawl is over"


class ReindexActive(Conflict):
    code = "reindex_active"
    title = "Another reindex is active"


class ReindexOver(Conflict):
    code = "reindex_over"
    title = "Reindex is over"


class ReindexNotReady(Conflict):
    code = "reindex_not_ready"
    title = "Reindex is not ready"


class ReindexIncomplete(Conflict):
    code = "reindex_incomplete"
    title = "Models would be lost"


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


class TokenRequired(Conflict):
    code = "token_required"
    title = "Token required"


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


class KeyRequired(Forbidden):
    status = 401
    code = "key_required"
    title = "API key required"


class TokensOff(Forbidden):
    code = "tokens_off"
    title = "Tokens are not taken"


class WebhookOff(Forbidden):
    code = "webhook_off"
    title = "Webhook is off"


class WebhookSecretWrong(Forbidden):
    status = 401
    code = "webhook_secret_wrong"
    title = "Webhook secret missing or wrong"
