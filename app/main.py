"""The API process: `uvicorn app.main:create_app --factory`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from threading import Event, Thread

from fastapi import FastAPI

from app.api import (
    access,
    admin_jobs,
    clusters,
    crawls,
    health,
    job_events,
    jobs,
    limits,
    maps,
    merges,
    metrics,
    models,
    problems,
    reindexes,
    search,
    selections,
    stats,
    tasks,
    vectors,
    web,
    webhooks,
)
from app.api.services import Services
from app.api.signals import before_connections_close
from app.api.viewer import VaryByKey
from catalog.database import Database
from catalog.index import Follower
from catalog.settings import Settings, settings
from catalog.tokens import TokenBox

MAP_CHECKS = 5  # looks at the change feed for one at the map


def create_app(conf: Settings | None = None) -> FastAPI:
    """The app with its routes; its lifespan holds the database and the thread that follows the change feed."""
    conf = conf or settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(conf.require_database_url())
        index = Follower(database, conf.feed_interval, conf.index_dir, memory=conf.index_memory)
        app.state.services = services = Services.of(database, index)
        stopping = Event()
        maps_ready = Thread(
            target=services.keep_maps_ready, args=(stopping, MAP_CHECKS * conf.feed_interval), name="maps", daemon=True
        )
        index.start()
        maps_ready.start()
        with before_connections_close(services.events.end):
            async with services.events:
                yield
        stopping.set()
        maps_ready.join()
        index.stop()
        database.close()

    app = FastAPI(
        title="Deltadex",
        version=version("deltadex"),
        description="The index of what fine-tuned language models have learned.",
        lifespan=lifespan,
    )
    app.state.settings = conf
    app.state.tokens = TokenBox(conf.token_key, conf.token_max_age)
    for routes in (
        clusters, maps, crawls, reindexes, models, search, vectors, tasks, selections, merges, job_events, jobs,
        admin_jobs, access, stats, webhooks, health, metrics, web,
    ):  # fmt: skip
        app.include_router(routes.router)
    problems.install(app)
    app.add_middleware(limits.BodyLimit)
    app.add_middleware(VaryByKey)

    return app
