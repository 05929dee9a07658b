# A worker: one job at a time, on the CPU or on the one GPU it is given.
#   docker build --file docker/worker.Dockerfile --tag adapter-safety-worker .
# torch as the package index has it, which on x86-64 is the CUDA build. For the CPU build give the
# index that has it: --build-arg PIP_EXTRA_INDEX_URL=...
# A base by its digest: --build-arg BASE=python:3.12-slim-bookworm@sha256:...
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# read by pip; no credentials in it, because arguments stay in the history of this stage
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --constraint constraints.txt hatchling
COPY pyproject.toml ./
# by themselves, so that torch is not installed again whenever a line of ours changes
RUN /opt/build/bin/python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['postgres'], sep='\n')" > requirements.txt \
    && python -m venv --without-pip /opt/venv \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
        --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY app app
COPY workers workers
RUN PATH=/opt/build/bin:$PATH pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps \
        /opt/wheels/*.whl

FROM ${BASE}
RUN groupadd --gid 10001 adapter-safety \
    && useradd --uid 10001 --gid 10001 --no-log-init --create-home --home-dir /data adapter-safety
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH HOME=/data PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ADAPTER_SAFETY_DATA_DIR=/data \
    ADAPTER_SAFETY_WORKER_PORT=9180 ADAPTER_SAFETY_WORKER_HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 9180
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["adapter-safety", "worker-health"]
CMD ["celery", "-A", "workers.celery_app", "worker", "--pool", "prefork", "--concurrency", "1", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
