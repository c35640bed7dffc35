"""From raw files to a fingerprinted, immutable dataset version, and back to tensors.

from mizzen.data import DataPipeline, FeatureScaler, CategoricalEncoder

pipeline = DataPipeline(
    sources=["user_behavior.csv", "product_catalog.json"],
    transforms=[FeatureScaler(method="minmax"), CategoricalEncoder(handle_unknown="ignore")],
    target="purchase_flag",
)
processed = pipeline.fit_transform()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mizzen.data.sdk import (
        Bucketizer,
        CategoricalEncoder,
        CustomStep,
        DataPipeline,
        DateParts,
        FeatureCross,
        FeatureScaler,
        ImageTransform,
        Imputer,
        LogTransform,
        OutlierClipper,
        ProcessedData,
        TextNormalizer,
        TfIdf,
        Tokenizer,
    )
    from mizzen.data.store import DatasetVersion

__all__ = [
    "Bucketizer",
    "CategoricalEncoder",
    "CustomStep",
    "DataPipeline",
    "DatasetVersion",
    "DateParts",
    "FeatureCross",
    "FeatureScaler",
    "ImageTransform",
    "Imputer",
    "LogTransform",
    "OutlierClipper",
    "ProcessedData",
    "TextNormalizer",
    "TfIdf",
    "Tokenizer",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import mizzen.data` stays fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "mizzen.data.store" if name == "DatasetVersion" else "mizzen.data.sdk"
    return getattr(importlib.import_module(module), name)
