"""The Python SDK: the Dataset of a manifest as an object, for notebooks and scripts.

Steps are the API's own models under the names that users of pandas and scikit-learn look for; what a DataPipeline makes
is, to the bit, what the kind makes of the same sources.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mizzen.data import engine
from mizzen.data.frames import FrameSource
from mizzen.data.making import LocalRunner, Runner
from mizzen.data.materialize import Request, Version, make
from mizzen.data.pipeline import Arrays, Pipeline, arrays, matrix_names
from mizzen.data.store import LABEL, DatasetVersion
from mizzen_api import dataset_transforms as api
from mizzen_api.contract import SPLITS
from mizzen_api.dataset import DatasetSpec, Engine, Split
from mizzen_api.dataset_expectations import Expectation
from mizzen_api.dataset_sources import Source
from mizzen_api.meta import ApiModel

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


class FeatureScaler(api.Scale):
    """Numbers to a common range: method minmax, standard, robust or quantile."""


class CategoricalEncoder(api.Encode):
    """Categories to numbers: method onehot, ordinal, target or hashing."""


class Imputer(api.Impute):
    """Missing values filled: method mean, median, mostFrequent or constant."""


class OutlierClipper(api.Clip):
    """Numbers cut to bounds or to quantiles of the train split."""


class Bucketizer(api.Bucketize):
    """Numbers to intervals."""


class LogTransform(api.Log):
    """Numbers to their logarithm."""


class DateParts(api.DateParts):
    """Dates to numbers."""


class FeatureCross(api.Cross):
    """Columns combined."""


class TextNormalizer(api.NormalizeText):
    """Text to one form."""


class Tokenizer(api.Tokenize):
    """Text to token ids of a vocabulary trained here."""


class TfIdf(api.TfIdf):
    """Text to weights of its words."""


class ImageTransform(api.Image):
    """Images decoded, resized and normalised."""


class CustomStep(api.Custom):
    """A step of your own, by its import path."""


_FIELDS: Mapping[type[ApiModel], str] = {
    api.Scale: "scale", api.Encode: "encode", api.Impute: "impute", api.Clip: "clip", api.Bucketize: "bucketize",
    api.Log: "log", api.DateParts: "date_parts", api.Cross: "cross", api.NormalizeText: "normalize_text",
    api.Tokenize: "tokenize", api.TfIdf: "tfidf", api.Image: "image", api.Custom: "custom",
}  # fmt: skip


def transform_of(step: ApiModel | Mapping[str, Any]) -> api.Transform:
    """A step of this module, or a transform as a manifest writes it."""
    if isinstance(step, api.Transform):
        return step
    if isinstance(step, Mapping):
        return api.Transform.model_validate(step)
    for kind, field in _FIELDS.items():
        if isinstance(step, kind):
            return api.Transform.model_validate({field: step.model_dump(by_alias=False)})
    raise TypeError(f"{step!r} is no step: use those of mizzen.data, such as FeatureScaler()")


class DataPipeline:
    """Sources, steps and a target, as in a Dataset's spec.

    `sources` are paths, URIs, manifests' source blocks, or one polars or pandas frame. A source block may join:
    {"uri": "product_catalog.json", "join": {"on": ["product_id"]}}. Plain paths with the same columns go one below the
    other; one with other columns is joined by those that it shares with the first.

    `secrets` are what Secrets are in a cluster: {"bucket": {"accessKeyId": …, "secretAccessKey": …}} for a source with
    "secretRef": {"name": "bucket"}, {"shop": "postgresql://…"} for a query.

    engine="ray" spreads the work over the Ray cluster that the process is connected to, and "auto" does so from 8 GiB
    of sources on; what comes of it is the same.

    Raises mizzen.errors.UserError, whose message names file, row and column, where something cannot be used.
    """

    def __init__(  # noqa: PLR0913
        self,
        sources: Sequence[str | Path | Mapping[str, Any] | Source] | Any,
        transforms: Sequence[ApiModel | Mapping[str, Any]] = (),
        target: str = "",
        *,
        split: Split | Mapping[str, Any] | None = None,
        expectations: Sequence[Expectation | Mapping[str, Any]] = (),
        column_types: Mapping[str, str] | None = None,
        target_type: Literal["auto", "class", "number"] = "auto",
        max_bad_rows: int = 0,
        secrets: Mapping[str, str | Mapping[str, str]] | None = None,
        engine: Literal["polars", "ray", "auto"] = "polars",
    ) -> None:
        if not target:
            raise ValueError("DataPipeline needs a target: the column to predict")
        self._frame = _frame_of(sources)
        self.secrets = _flat(secrets or {})
        listed = [{"uri": "memory://frame"}] if self._frame is not None else sources_of(sources, self.secrets)
        self.spec = DatasetSpec.model_validate(
            {
                "sources": listed,
                "transforms": [transform_of(step) for step in transforms],
                "target": target,
                "split": split or {},
                "expectations": list(expectations),
                "column_types": dict(column_types or {}),
                "target_type": target_type,
                "max_bad_rows": max_bad_rows,
                "engine": engine,
            }
        )

    def materialize(self, artifacts: str | Path, name: str = "dataset", namespace: str = "default") -> DatasetVersion:
        """Make the version below `artifacts`, a folder or s3://BUCKET/PREFIX, or find it there without work."""
        version = self._make(str(artifacts), namespace, name)
        return DatasetVersion(version.uri)

    def fit_transform(self) -> ProcessedData:
        """All rows as features, in memory. For more than fits there, see `materialize`."""
        with tempfile.TemporaryDirectory(prefix="mizzen-") as folder:
            version = self._make(folder, "default", "dataset")
            dataset = DatasetVersion(version.uri)
            parts = {name: dataset.frame(name) for name in SPLITS}
            return ProcessedData(dataset.pipeline, parts, version.fingerprint, dataset.manifest)

    def _make(self, artifacts: str, namespace: str, name: str) -> Version:
        source = FrameSource(self._frame) if self._frame is not None else None
        request = Request(self.spec, artifacts, namespace, name, secrets=self.secrets, source=source)
        return make(request, runner=lambda rows: _runner(engine.choose(self.spec, rows)))


class ProcessedData:
    """The rows of a fitted pipeline: three parts of features and labels.

    `frame(part)` is wide and readable; `X(part)` and `y(part)` are what a model takes.
    """

    def __init__(
        self, pipeline: Pipeline, parts: Mapping[str, pl.DataFrame], fingerprint: str, manifest: Mapping[str, Any]
    ) -> None:
        self.pipeline, self.fingerprint, self.manifest = pipeline, fingerprint, manifest
        self._parts = dict(parts)

    def __len__(self) -> int:
        return sum(part.height for part in self._parts.values())

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {part.height}" for name, part in self._parts.items())
        others = [feature.name for feature in self.pipeline.features if feature.kind not in {"number", "onehot"}]
        features = len(self.feature_names) + len(others)
        return f"ProcessedData({rows}; {features} feature{'' if features == 1 else 's'}; {self.fingerprint[:19]}…)"

    def __iter__(self) -> Iterator[tuple[str, pl.DataFrame]]:
        return iter((name, self.frame(name)) for name in self._parts)

    @property
    def feature_names(self) -> list[str]:
        """Names of the columns of X."""
        return matrix_names(self.pipeline.features)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.pipeline.classes

    @property
    def train(self) -> pl.DataFrame:
        return self.frame("train")

    @property
    def validation(self) -> pl.DataFrame:
        return self.frame("validation")

    @property
    def test(self) -> pl.DataFrame:
        return self.frame("test")

    def stored(self, part: str = "train") -> pl.DataFrame:
        """Features as a dataset version has them, and `label`: what training reads."""
        return self._parts[part]

    def frame(self, part: str = "train") -> pl.DataFrame:
        """Numbers and one-hot columns by name, other features as they are stored, and the target, a class as text."""
        import polars as pl

        rows = self._parts[part]
        made: list[pl.Series] = []
        for feature in self.pipeline.features:
            if feature.kind == "number":
                made.append(rows[feature.name])
            elif feature.kind == "onehot":
                codes = rows[feature.name]
                labels = feature.labels or tuple(map(str, range(feature.width)))
                made += [
                    (codes == code).cast(pl.UInt8).alias(f"{feature.name}={label}") for code, label in enumerate(labels)
                ]
            else:
                made += [column for column in rows if _belongs(column.name, feature.name)]
        return pl.DataFrame([*made, self._target(rows)])

    def _target(self, rows: pl.DataFrame) -> pl.Series:
        import polars as pl

        target = self.pipeline.target
        if not target.is_class:
            return rows[LABEL].alias(target.name)
        return pl.Series(target.classes).gather(rows[LABEL]).alias(target.name)

    def arrays(self, part: str = "train") -> Arrays:
        """As pipeline.arrays has them: `features`, `ids`, `lengths`, images by name."""
        return arrays(self._parts[part], self.pipeline.features)

    def X(self, part: str = "train") -> np.ndarray[Any, Any]:  # noqa: N802 (the field's name for it)
        """(rows, len(feature_names)) float32 of the numbers and one-hot columns."""
        return self.arrays(part)["features"]

    def y(self, part: str = "train") -> np.ndarray[Any, Any]:
        """(rows,): ids of `classes`, or numbers."""
        return self._parts[part][LABEL].to_numpy()


def _flat(secrets: Mapping[str, str | Mapping[str, str]]) -> dict[str, str]:
    """As the operator mounts them: by NAME/KEY, and by NAME where that is all."""
    flat: dict[str, str] = {}
    for name, value in secrets.items():
        flat |= {name: value} if isinstance(value, str) else {f"{name}/{key}": text for key, text in value.items()}
    return flat


def _runner(engine: Engine) -> Runner:
    if engine == "polars":
        return LocalRunner()
    from mizzen.data.ray_engine import RayRunner

    return RayRunner()


def _belongs(column: str, feature: str) -> bool:
    return column in {feature, f"{feature}_length", f"{feature}_at", f"{feature}_weight"}


def _frame_of(sources: Any) -> pl.DataFrame | None:
    import polars as pl

    if isinstance(sources, pl.DataFrame):
        return sources
    if isinstance(sources, pl.LazyFrame):
        return sources.collect()
    if type(sources).__module__.partition(".")[0] == "pandas":
        return pl.from_pandas(sources)
    return None


def sources_of(
    sources: Sequence[str | Path | Mapping[str, Any] | Source] | str | Path, secrets: Mapping[str, str]
) -> list[Any]:
    """Sources as the API has them; how plain paths go together follows from their columns."""
    from mizzen.data.sources import open_sources

    if isinstance(sources, str | Path | Mapping | Source):
        sources = [sources]
    if not sources:
        raise ValueError("DataPipeline needs at least one source")
    listed: list[Any] = [{"uri": str(source)} if isinstance(source, str | Path) else source for source in sources]
    if len(listed) == 1 or not all(isinstance(source, str | Path) for source in sources):
        return listed
    columns = [list(open_sources([Source(uri=source["uri"])], secrets=secrets).schema()) for source in listed]
    for source, mine in zip(listed[1:], columns[1:], strict=True):
        shared = [name for name in columns[0] if name in mine]
        if set(mine) != set(columns[0]) and shared:
            source["join"] = {"on": shared}
    return listed
