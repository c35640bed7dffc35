# Every workload pod: materialisation, search, training, serving. --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
# makes it without CUDA. Build from the root: docker build -f docker/runtime.Dockerfile .
FROM docker.io/library/python:3.13-slim AS build
ARG TORCH_INDEX=https://pypi.org/simple
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY runtime runtime
COPY kernels kernels
COPY local local
RUN python -m venv /opt/mizzen \
 && /opt/mizzen/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" ".[runtime,serve,kernels]"

FROM docker.io/library/python:3.13-slim
COPY --from=build /opt/mizzen /opt/mizzen
# The root file system is read-only: what libraries cache goes to the pod's own /tmp.
ENV PATH=/opt/mizzen/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp XDG_CACHE_HOME=/tmp/.cache \
    TRITON_CACHE_DIR=/tmp/.triton RAY_TMPDIR=/tmp
USER 65532:65532
ENTRYPOINT ["mizzen"]
