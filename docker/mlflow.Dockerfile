# The tracking server, of the version that the runtime's client has. Build from the root:
# docker build -f docker/mlflow.Dockerfile .
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml ./
RUN python -m venv /opt/mlflow \
 && version=$(python -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(next(r for r in d["optional-dependencies"]["runtime"] if r.startswith("mlflow==")))') \
 && /opt/mlflow/bin/pip install --no-cache-dir "$version"

FROM python:3.11-slim
# Libraries ask for the user's name, which must not fail.
RUN groupadd --gid 65532 nonroot && useradd --uid 65532 --gid 65532 --home-dir /tmp --no-create-home nonroot
COPY --from=build /opt/mlflow /opt/mlflow
ENV PATH=/opt/mlflow/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
ENTRYPOINT ["mlflow"]
