# The environment of requirements.lock with this repository's code, for every node of a cluster.
#   docker build -t REGISTRY/stbir:TAG .
# Without a download of its own: the base image and what pip reads come from wherever your machine gets them.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 ray && python -m pip install --no-cache-dir uv
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN uv venv --python 3.11 /opt/stbir && uv pip sync --python /opt/stbir/bin/python --no-cache --require-hashes requirements.lock
COPY stbir stbir
COPY ray_jobs ray_jobs
COPY serve serve
COPY deploy/healthy.py deploy/healthy.py
RUN uv pip install --python /opt/stbir/bin/python --no-cache --no-deps --no-build-isolation --editable .

# Everyone but root may run it; the token comes from a secret at run time, never from here.
USER 1000
ENV PATH=/opt/stbir/bin:$PATH PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
CMD ["python", "ray_jobs/preflight.py", "--help"]
