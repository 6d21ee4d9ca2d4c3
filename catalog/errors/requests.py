"""Errors of a request: malformed, unknown, in conflict with the current state, or not permitted."""

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


class InvalidHubToken(InvalidInput):
    code = "invalid_hub_token"
    title = "Invalid Hub token"


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
    title = "Term not found"


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


class BlockNotFound(NotFound):
    code = "block_not_found"
    title = "Block not found"


class QuarantineNotFound(NotFound):
    code = "quarantine_not_found"
    title = "Quarantine not found"


class SelectionNotFound(NotFound):
    code = "selection_not_found"
    title = "Selection not found"


class AliasNotFound(NotFound):
    code = "alias_not_found"
    title = "Alias not found"


class KeyNotFound(NotFound):
    code = "key_not_found"
    title = "API key not found"


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
    title = "Model indistinguishable from its base"


class SpaceRequired(Conflict):
    code = "space_required"
    title = "Space required"


class SpaceServing(Conflict):
    code = "space_serving"
    title = "Space is serving"


class BaseRequired(Conflict):
    code = "base_required"
    title = "Base model required"


class SpaceMismatch(Conflict):
    code = "space_mismatch"
    title = "Vectors of different spaces"


class AmbiguousTerm(Conflict):
    code = "ambiguous_term"
    title = "Ambiguous term"


class ZeroVector(Conflict):
    code = "zero_vector"
    title = "Sum is a zero vector"


class NameTaken(Conflict):
    code = "name_taken"
    title = "Name taken"


class TaskNotFinished(Conflict):
    code = "task_not_finished"
    title = "Task not finished"


class ExamplesNotKept(Conflict):
    code = "examples_not_kept"
    title = "Examples not kept"


class MergeNotFinished(Conflict):
    code = "merge_not_finished"
    title = "Merge not finished"


class TooManyVectors(Conflict):
    code = "too_many_vectors"
    title = "Too many stored vectors"


class TooManyResults(Conflict):
    code = "too_many_results"
    title = "Too many tasks, merges and selections"


class TooManyTags(Conflict):
    code = "too_many_tags"
    title = "Too many team tags"


class TooManyAliases(Conflict):
    code = "too_many_aliases"
    title = "Too many aliases"


class AlreadyRunning(Conflict):
    code = "already_running"
    title = "Already running"


class ClustersNotReady(Conflict):
    code = "clusters_not_ready"
    title = "Clusters not ready"


class CrawlFinished(Conflict):
    code = "crawl_finished"
    title = "Crawl already finished"


class ReindexActive(Conflict):
    code = "reindex_active"
    title = "Another reindex is active"


class ReindexFinished(Conflict):
    code = "reindex_finished"
    title = "Reindex already finished"


class ReindexNotReady(Conflict):
    code = "reindex_not_ready"
    title = "Reindex not ready"


class ReindexIncomplete(Conflict):
    code = "reindex_incomplete"
    title = "Models would be lost"


class MapNotReady(Conflict):
    code = "map_not_ready"
    title = "Map not ready"


class JobFinished(Conflict):
    code = "job_finished"
    title = "Job already finished"


class NotRetriable(Conflict):
    code = "not_retriable"
    title = "Job not retriable"


class HubTokenRequired(Conflict):
    code = "hub_token_required"
    title = "Hub token required"


class Forbidden(CatalogError):
    status = 403
    code = "forbidden"
    title = "Forbidden"


class RoleRequired(Forbidden):
    code = "role_required"
    title = "Key with another role required"


class NotYours(Forbidden):
    code = "not_yours"
    title = "Belongs to another key"


class HostNotAllowed(Forbidden):
    code = "host_not_allowed"
    title = "Host not allowed"


class CrossSite(Forbidden):
    code = "cross_site"
    title = "Request of another site"


class Unauthorized(CatalogError):
    """The request has no API key, or one that is not accepted."""

    status = 401
    code = "unauthorized"
    title = "Not authorized"


class KeyRequired(Unauthorized):
    code = "key_required"
    title = "API key required"


class KeyUnknown(Unauthorized):
    code = "key_unknown"
    title = "Unknown API key"


class KeyExpired(Unauthorized):
    code = "key_expired"
    title = "API key expired"


class KeyRevoked(Unauthorized):
    code = "key_revoked"
    title = "API key revoked"


class HubTokensDisabled(Forbidden):
    code = "hub_tokens_disabled"
    title = "Hub tokens disabled"


class WebhookDisabled(Forbidden):
    code = "webhook_disabled"
    title = "Webhook disabled"


class InvalidWebhookSecret(Forbidden):
    status = 401
    code = "invalid_webhook_secret"
    title = "Invalid webhook secret"
