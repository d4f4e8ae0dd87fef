# Engram's server with the checkpoints that ship.
# WHEELS=cpu serves with ONNX Runtime and holds no torch; WHEELS=cuda adds the extra `torch`, whose wheels carry CUDA and
# Triton, and the C compiler by which Triton builds what launches its kernels.
# The extra `postgres` is in both: several servers may share a database.
# A change of the source leaves the layer of the dependencies as it is.

FROM python:3.11-slim AS dependencies
ARG WHEELS=cpu
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN python -c 'import sys, tomllib; \
        project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        extras = project["optional-dependencies"]; \
        wheels = {"cpu": [], "cuda": extras["torch"]}; \
        print(*project["dependencies"], *extras["postgres"], *wheels[sys.argv[1]], sep="\n")' \
        "$WHEELS" > requirements.txt \
    && python -m venv --without-pip /opt/engram \
    && pip --python /opt/engram/bin/python install --no-cache-dir -c constraints.txt -r requirements.txt

FROM python:3.11-slim AS application
WORKDIR /build
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt hatchling ziglang \
    && python -m venv --without-pip /opt/engram
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY app app/
COPY benchmarks benchmarks/
COPY deploy/haproxy deploy/haproxy/
COPY engram engram/
COPY kernels kernels/
COPY models models/
COPY training training/
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /dist . \
    && pip --python /opt/engram/bin/python install --no-cache-dir --no-deps /dist/*.whl

FROM python:3.11-slim
ARG WHEELS=cpu
LABEL org.opencontainers.image.title="Engram" \
      org.opencontainers.image.description="Serves neural networks with memory (DNC, NTM, RNN)" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim"
# hadolint ignore=DL3008
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin engram \
    && install --directory --owner=engram --group=engram /data /cache \
    && if [ "$WHEELS" = cuda ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends gcc libc6-dev \
        && rm -r /var/lib/apt/lists/*; \
    fi
COPY --from=dependencies /opt/engram /opt/engram/
COPY checkpoints /checkpoints/
COPY --from=application /opt/engram /opt/engram/

# ONNX Runtime reports to Microsoft unless it is told not to.
ENV PATH=/opt/engram/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    TRITON_CACHE_DIR=/cache \
    ENGRAM_HOST=0.0.0.0 \
    ENGRAM_PORT=8000 \
    ENGRAM_CHECKPOINTS=/checkpoints \
    ENGRAM_DATA=/data
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import http.client, os, sys; \
        connection = http.client.HTTPConnection('127.0.0.1', int(os.environ['ENGRAM_PORT']), timeout=3); \
        connection.request('GET', '/healthz'); \
        sys.exit(connection.getresponse().status != 200)"]
CMD ["engram", "serve"]
