"""The API process: `uvicorn app.main:create_app --factory`."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from threading import Event, Thread

from fastapi import FastAPI

from app.api import concurrency, limits, openapi, problems, rate_limits
from app.api.audit import routes as audit_routes
from app.api.auth.audit import AuditMiddleware
from app.api.auth.caller import authorized
from app.api.auth.origins import OriginMiddleware
from app.api.auth.vary import VaryByKeyMiddleware
from app.api.blocks import routes as block_routes
from app.api.clusters import routes as cluster_routes
from app.api.crawls import routes as crawl_routes
from app.api.jobs import admin_routes as job_admin_routes
from app.api.jobs import event_routes as job_event_routes
from app.api.jobs import routes as job_routes
from app.api.keys import routes as key_routes
from app.api.maintenance import routes as maintenance_routes
from app.api.maps import routes as map_routes
from app.api.merges import routes as merge_routes
from app.api.models import access_routes as model_access_routes
from app.api.models import curation_routes as model_curation_routes
from app.api.models import routes as model_routes
from app.api.operations import health, metrics, stats
from app.api.quarantine import routes as quarantine_routes
from app.api.reindexes import routes as reindex_routes
from app.api.repeated_parameters import no_repeated_parameters
from app.api.search import routes as search_routes
from app.api.selections import routes as selection_routes
from app.api.services.services import Services
from app.api.shutdown import before_connections_close
from app.api.spaces import routes as space_routes
from app.api.tasks import routes as task_routes
from app.api.vectors import routes as vector_routes
from app.api.web import routes as web_routes
from app.api.webhooks import routes as webhook_routes
from catalog.auth import keys
from catalog.auth.hub_tokens import TokenBox
from catalog.auth.viewer import MIN_KEY_LENGTH
from catalog.database import Database, Limits
from catalog.errors import Misconfigured
from catalog.index.follower import IndexFollower
from catalog.settings import Settings, settings

MAP_REFRESH_FACTOR = 5  # polls of the change feed per refresh of the default map
SWITCH_INTERVAL = 0.001  # seconds after which a thread that computes lets a waiting one run (Python's default: 0.005)
REQUEST_CONNECTIONS = 30  # to Postgres, at most; fewer than threads, because many requests need none for most of a time
BACKGROUND_CONNECTIONS = 10  # for the change feed, loads of indexes, job events and the readiness check
CONNECTION_TIMEOUT = 3.0  # seconds that a request waits for a connection

NO_KEY = (
    f"There is no API key. Set ADMIN_API_KEY to a secret of at least {MIN_KEY_LENGTH} characters, for example from "
    "`openssl rand -hex 16`, and start again. `deltadex up` creates one by itself."
)


def request_limits(conf: Settings) -> Limits:
    """The limits of the connections that requests use."""
    return Limits(REQUEST_CONNECTIONS, CONNECTION_TIMEOUT, conf.statement_timeout, conf.lock_timeout)


def create_app(conf: Settings | None = None) -> FastAPI:
    """Create the app. Its lifespan opens the database and starts the threads that follow the change feed."""
    conf = conf or settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if threading.current_thread() is threading.main_thread():  # the process is the API's alone
            sys.setswitchinterval(SWITCH_INTERVAL)
            gc.freeze()  # collections need not look at what was imported, and hold up all threads for less
        database = Database(conf.require_database_url(), request_limits(conf))
        if conf.admin_api_key is None and not keys.any_usable(database):
            database.close()
            raise Misconfigured(NO_KEY)
        background = Database(conf.require_database_url(), Limits(BACKGROUND_CONNECTIONS))
        index = IndexFollower(background, conf.feed_interval, conf.index_dir, memory=conf.index_memory, reader=database)
        app.state.services = services = Services.create(database, background, index, conf.heartbeat_timeout)
        stopping = Event()
        map_refresh = Thread(
            target=services.refresh_default_map,
            args=(stopping, MAP_REFRESH_FACTOR * conf.feed_interval),
            name="maps",
            daemon=True,
        )
        app.state.rate_limiter = rate_limiter = rate_limits.RateLimiter(conf.require_redis_url())
        app.state.lanes = concurrency.Lanes()
        index.start()
        services.readiness.start()
        map_refresh.start()
        with before_connections_close(services.events.end):
            async with services.events:
                yield
        await rate_limiter.close()
        stopping.set()
        map_refresh.join()
        services.readiness.stop()
        services.map_bodies.close()
        index.stop()
        background.close()
        database.close()

    app = FastAPI(
        title="Deltadex",
        version=version("deltadex"),
        description="The index of what fine-tuned language models have learned.",
        lifespan=lifespan,
        dependencies=[authorized, no_repeated_parameters],
    )
    app.state.settings = conf
    app.state.tokens = TokenBox(conf.token_key, conf.token_max_age)
    for routes in (
        cluster_routes, map_routes, crawl_routes, reindex_routes, model_routes, search_routes, vector_routes,
        task_routes, selection_routes, merge_routes, job_event_routes, job_routes, job_admin_routes,
        model_access_routes, model_curation_routes, key_routes, audit_routes, block_routes, space_routes,
        quarantine_routes, stats, webhook_routes, maintenance_routes, health, metrics, web_routes,
    ):  # fmt: skip
        app.include_router(routes.router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(AuditMiddleware)
    app.add_middleware(concurrency.ConcurrencyMiddleware)
    app.add_middleware(limits.BodyLimitMiddleware)  # before a slot is taken: a body may arrive slowly
    app.add_middleware(rate_limits.RateLimitMiddleware)
    app.add_middleware(VaryByKeyMiddleware)
    app.add_middleware(OriginMiddleware, allowed={*(conf.allowed_hosts or ()), conf.host})

    return app
