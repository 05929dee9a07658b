# The HTTP service. It never imports torch, so the image does not carry it.
#   docker build --file docker/api.Dockerfile --tag adapter-safety-api .
# A base by its digest: --build-arg BASE=python:3.12-slim-bookworm@sha256:...
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --constraint constraints.txt hatchling
COPY docker/api-requirements.txt docker/
RUN python -m venv --without-pip /opt/venv \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
        --constraint constraints.txt --requirement docker/api-requirements.txt
COPY pyproject.toml README.md LICENSE ./
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
    ADAPTER_SAFETY_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
CMD ["uvicorn", "--factory", "app.main:create_app", "--host", "0.0.0.0", "--port", "8000", "--no-proxy-headers", "--no-server-header", "--timeout-graceful-shutdown", "5"]
