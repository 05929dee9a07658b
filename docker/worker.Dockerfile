# A worker: one job at a time, on the CPU or on the one GPU it is given.
FROM python:3.12-slim-bookworm
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app app
COPY workers workers
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[postgres]' \
    && useradd --system --uid 10001 --create-home --home-dir /data adapter-safety
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 ADAPTER_SAFETY_DATA_DIR=/data
USER adapter-safety
WORKDIR /data
VOLUME /data
CMD ["celery", "-A", "workers.celery_app", "worker", "--pool", "prefork", "--concurrency", "1", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
