# The operator: no torch, no Ray. Build from the root: docker build -f docker/operator.Dockerfile .
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY runtime runtime
COPY kernels kernels
COPY local local
COPY charts charts
RUN python -m venv /opt/mizzen && /opt/mizzen/bin/pip install --no-cache-dir ".[operator]"

FROM python:3.11-slim
# Libraries ask for the user's name, which must not fail.
RUN groupadd --gid 65532 nonroot && useradd --uid 65532 --gid 65532 --home-dir /tmp --no-create-home nonroot
COPY --from=build /opt/mizzen /opt/mizzen
ENV PATH=/opt/mizzen/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["mizzen-operator"]
