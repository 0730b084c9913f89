# The image of every cluster node: the runtime dependencies and this project's code.
#   docker build -t REGISTRY/stbir:TAG .
# To pin the base image: --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:DIGEST, with the digest that
#   docker buildx imagetools inspect python:3.11-slim   prints.
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}

RUN useradd --create-home --uid 1000 ray && python -m pip install --no-cache-dir uv==0.13.9
WORKDIR /app
COPY requirements.runtime.lock LICENSE ./
# With bytecode: the root file system may be read-only at run time.
RUN uv venv --python 3.11 /opt/stbir && \
    uv pip sync --python /opt/stbir/bin/python --no-cache --compile-bytecode --require-hashes requirements.runtime.lock
COPY stbir stbir
COPY ray_jobs ray_jobs
COPY serve serve
COPY deploy/healthy.py deploy/healthy.py

# Not root. The cluster's token comes from a secret at run time and is not part of the image.
USER 1000
ENV PATH=/opt/stbir/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
CMD ["python", "ray_jobs/preflight.py", "--help"]
