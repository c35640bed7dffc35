# Every workload pod: materialisation, search, training, serving. --build-arg TORCH_INDEX=URL names an index with builds
# of torch without CUDA. Build from the root: docker build -f docker/runtime.Dockerfile .
FROM python:3.11-slim AS build
ARG TORCH_INDEX=
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY runtime runtime
COPY kernels kernels
COPY local local
COPY charts charts
RUN python -m venv /opt/mizzen \
 && /opt/mizzen/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ".[runtime,serve,kernels]"

FROM python:3.11-slim
# Libraries ask for the user's name, which must not fail.
RUN groupadd --gid 65532 nonroot && useradd --uid 65532 --gid 65532 --home-dir /tmp --no-create-home nonroot
COPY --from=build /opt/mizzen /opt/mizzen
# The root file system is read-only: what libraries cache goes to the pod's own /tmp.
ENV PATH=/opt/mizzen/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp XDG_CACHE_HOME=/tmp/.cache \
    TRITON_CACHE_DIR=/tmp/.triton RAY_TMPDIR=/tmp
USER 65532:65532
ENTRYPOINT ["mizzen"]
