# syntax=docker/dockerfile:1
# Two images: `api` serves HTTP and runs beat and the migrations, without torch. `worker` runs the jobs.
#   docker build --target api .
#   docker build --target worker --build-arg TORCH_INDEX_URL=URL .    (index of a CPU or CUDA build of torch)

FROM python:3.11-slim-bookworm AS build
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY constraints.txt ./

FROM build AS build-api
COPY . .
RUN pip install --constraint constraints.txt .

FROM build AS build-worker
ARG TORCH_INDEX_URL=""
# before the sources are copied, so that a change in them does not download torch again
RUN pip install --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
COPY . .
RUN pip install --constraint constraints.txt '.[worker]'

FROM python:3.11-slim-bookworm AS runtime
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 DELTADEX_DATA_DIR=/data
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin deltadex \
 && install --directory --owner deltadex --mode 0750 /data
WORKDIR /srv/deltadex
# alembic reads the location of the migrations from pyproject.toml
COPY pyproject.toml ./
COPY migrations migrations
USER 10001
VOLUME /data

FROM runtime AS worker
COPY --from=build-worker /opt/venv /opt/venv
# Celery's solo pool does not respond while a job runs, so the check reads the heartbeat in Postgres
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-m", "workers.health"]
CMD ["celery", "--app", "workers.main", "worker", "--pool", "solo", "--queues", "encode,maintenance", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]

FROM runtime AS api
COPY --from=build-api /opt/venv /opt/venv
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["uvicorn", "app.main:create_app", "--factory", "--host", "0.0.0.0", "--port", "8000"]
