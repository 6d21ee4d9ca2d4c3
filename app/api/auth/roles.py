"""The role that each route requires. `docs/security.md` has the same table for readers."""

from __future__ import annotations

from collections.abc import Mapping

from catalog.tables import Role

# open to everybody: the page's files, and the checks of load balancers; the webhook checks its own secret
PUBLIC = """
GET /
GET /map
GET /map/
GET /healthz
GET /readyz
POST /v1/webhooks/hub
"""
READER = """
GET /v1/aliases
GET /v1/clusters
GET /v1/clusters/runs
GET /v1/clusters/runs/{run_id}
GET /v1/clusters/runs/{run_id}/compare/{other_id}
GET /v1/clusters/{cluster_id}
GET /v1/clusters/{cluster_id}/members
GET /v1/jobs
GET /v1/jobs/events
GET /v1/jobs/{job_id}
GET /v1/jobs/{job_id}/events
GET /v1/map
GET /v1/merges
GET /v1/merges/{merge_id}
GET /v1/merges/{merge_id}/adapter
GET /v1/merges/{merge_id}/neighbors
GET /v1/models
GET /v1/models/{owner}/{name}
GET /v1/models/{owner}/{name}/cluster
GET /v1/models/{owner}/{name}/neighbors
GET /v1/models/{owner}/{name}/revisions
GET /v1/selections
GET /v1/selections/{selection_id}
GET /v1/spaces
GET /v1/stats
GET /v1/tasks
GET /v1/tasks/{task_id}
GET /v1/tasks/{task_id}/adapter
GET /v1/tasks/{task_id}/neighbors
GET /v1/vectors
GET /v1/vectors/{name}
POST /v1/merges/plan
POST /v1/search
POST /v1/search/batch
"""
SUBMITTER = """
DELETE /v1/aliases/{alias}
DELETE /v1/models/{owner}/{name}/note
PATCH /v1/models/{owner}/{name}/team-tags
PUT /v1/aliases/{alias}
PUT /v1/models/{owner}/{name}/note
DELETE /v1/merges/{merge_id}
DELETE /v1/selections/{selection_id}
DELETE /v1/tasks/{task_id}
DELETE /v1/vectors/{name}
POST /v1/jobs/{job_id}/cancel
POST /v1/jobs/{job_id}/retry
POST /v1/merges
POST /v1/models
POST /v1/selections
POST /v1/tasks
POST /v1/vectors
"""


def _parse() -> Mapping[tuple[str, str], Role | None]:
    roles: dict[tuple[str, str], Role | None] = {}
    for role, lines in ((None, PUBLIC), (Role.READER, READER), (Role.SUBMITTER, SUBMITTER)):
        for line in lines.split("\n"):
            if line:
                method, path = line.split(" ")
                roles[method, path] = role
    return roles


_ROLES = _parse()


def required_role(method: str, path: str) -> Role | None:
    """The role that a route requires; None if it is open to everybody. Routes that are not listed are for admins."""
    return _ROLES.get((method, path), Role.ADMIN)
