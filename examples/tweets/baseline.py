"""Majority class and TF-IDF with logistic regression on the split of a materialised Dataset; prints JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def main() -> None:
    folder = Path(sys.argv[1])
    train, test = (pq.read_table(folder / "data" / f"{split}.parquet") for split in ("train", "test"))
    labels = train["label"].to_pylist()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2), LogisticRegression(C=4, max_iter=200))
    model.fit(train["raw.text"].to_pylist(), labels)
    majority = Counter(labels).most_common(1)[0][0]
    truth = test["label"].to_pylist()
    print(
        json.dumps(
            {
                "majority": sum(label == majority for label in truth) / len(truth),
                "rows": len(truth),
                "tfidf": float(model.score(test["raw.text"].to_pylist(), truth)),
            }
        )
    )


if __name__ == "__main__":
    main()
