"""Each step against what scikit-learn, or arithmetic by hand, makes of the same train rows; and chains of steps."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from sklearn import preprocessing

from mizzen.data.pipeline import Pipeline, arrays, matrix_names
from mizzen.data.steps.text import PAD_ID
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

from .builders import Made, make, spec, table

ROWS = table()


def raw_train(made: Made, frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The train rows as they were; every test that compares sets `visits` apart to find them."""
    from mizzen.data.making import key_columns
    from mizzen.data.split import with_hash

    hashed = with_hash(frame, key_columns(made.making.spec, frame.clear()), made.making.spec.split)
    return frame.filter(made.making.divider.parts(hashed) == 0).select(columns)


@pytest.mark.parametrize(
    ("method", "peer"),
    [
        ("standard", preprocessing.StandardScaler()),
        ("minmax", preprocessing.MinMaxScaler()),
        ("robust", preprocessing.RobustScaler()),
        ("quantile", preprocessing.QuantileTransformer(n_quantiles=400)),
    ],
)
def test_scaling_is_that_of_scikit_learn(method: str, peer: object) -> None:
    made = make(spec({"scale": {"columns": ["price", "visits"], "method": method}}), ROWS)
    train = raw_train(made, ROWS, "price", "visits").cast(pl.Float64).to_numpy()
    peer.fit(train)  # type: ignore[attr-defined]
    ours = made.pipeline.transform(ROWS.select("price", "visits")).to_numpy()
    theirs = peer.transform(ROWS.select("price", "visits").to_numpy())  # type: ignore[attr-defined]
    assert np.abs(ours - theirs).max() < (0.01 if method == "quantile" else 1e-5)


def test_a_chain_on_one_column_is_fitted_in_one_pass_and_right() -> None:
    chain = [
        {"impute": {"columns": ["age"], "method": "mean"}},
        {"scale": {"columns": ["age"], "method": "standard"}},
        {"bucketize": {"columns": ["visits"], "buckets": 4}},
        {"scale": {"columns": ["price"], "method": "robust"}},
        {"encode": {"columns": ["country"]}},
    ]
    made = make(spec(*chain), ROWS, chunk_rows=97)
    assert made.passes == 1
    age = raw_train(made, ROWS, "age")["age"].to_numpy()
    filled = np.where(np.isnan(age), np.nanmean(age), age)
    expected = (filled - filled.mean()) / filled.std()
    assert np.allclose(np.sort(made.train["age"].to_numpy()), np.sort(expected), atol=1e-5)
    assert set(made.train["visits"].unique()) == {0.0, 1.0, 2.0, 3.0}


def test_what_a_cut_hides_is_learned_in_a_second_pass() -> None:
    chain = [
        {"clip": {"columns": ["price"], "upperQuantile": 0.9}},
        {"scale": {"columns": ["price"], "method": "standard"}},
    ]
    made = make(spec(*chain), ROWS)
    price = raw_train(made, ROWS, "price")["price"].to_numpy()
    cut = np.minimum(price, np.quantile(price, 0.9, method="inverted_cdf"))
    got = np.sort(made.train["price"].to_numpy())
    assert made.passes == 2
    assert np.allclose(got, np.sort((cut - cut.mean()) / cut.std()), atol=0.02)
    assert got.mean() == pytest.approx(0, abs=1e-5)


def test_chunks_do_not_change_a_bit() -> None:
    chain = [
        {"impute": {}},
        {"scale": {"columns": ["age", "price"]}},
        {"encode": {"columns": ["country"], "method": "target"}},
        {"tfidf": {"column": "text", "maxFeatures": 20}},
    ]
    whole, again = make(spec(*chain), ROWS, chunk_rows=150), make(spec(*chain), ROWS, chunk_rows=150)
    assert whole.pipeline.to_json() == again.pipeline.to_json()
    assert whole.train.equals(again.train)


def test_one_hot_keeps_the_most_frequent_and_ignores_the_unknown() -> None:
    made = make(spec({"encode": {"columns": ["country"], "maxCategories": 2}}), ROWS)
    names = matrix_names(made.pipeline.features)
    assert names == ["country=de", "country=fr"]
    found = made.pipeline.transform_rows([{"country": name} for name in ("fr", "us", "de")])["features"]
    assert found.tolist() == [[0, 1], [0, 0], [1, 0]]


def test_an_unknown_category_is_refused_where_it_must_be_known() -> None:
    made = make(spec({"encode": {"columns": ["country"], "method": "ordinal", "handleUnknown": "error"}}), ROWS)
    assert made.pipeline.transform_rows([{"country": "us"}])["features"].tolist() == [[2.0]]
    with pytest.raises(ValueError, match="row 1: column 'country' has the unknown category 'at'; known are de, fr, us"):
        made.pipeline.transform_rows([{"country": "us"}, {"country": "at"}])


def test_target_encoding_is_the_smoothed_mean() -> None:
    made = make(spec({"encode": {"columns": ["country"], "method": "target", "smoothing": 5}}), ROWS)
    train = raw_train(made, ROWS, "country", "label")
    young = (train["label"] == "young").cast(pl.Float64)
    overall = young.mean()
    for name in ("de", "fr", "us"):
        mine = young.filter(train["country"] == name)
        expected = (mine.sum() + 5 * overall) / (len(mine) + 5)
        got = made.pipeline.transform_rows([{"country": name}])["features"][0, 0]
        assert got == pytest.approx(expected, abs=1e-6)
    assert made.pipeline.transform_rows([{"country": "at"}])["features"][0, 0] == pytest.approx(overall, abs=1e-6)


def test_hashing_needs_no_vocabulary_and_is_the_same_everywhere() -> None:
    made = make(spec({"encode": {"columns": ["country"], "method": "hashing", "buckets": 64}}), ROWS)
    found = made.pipeline.transform_rows([{"country": name} for name in ("de", "never seen", "de")])["features"]
    assert found.sum(axis=1).tolist() == [1, 1, 1]
    assert found.argmax(axis=1).tolist() == [58, 42, 58], "blake2b of the value, modulo the buckets"


def test_dates_are_taken_apart_and_gone() -> None:
    parts = {"columns": ["seen"], "parts": ["year", "month", "hour", "weekend", "epoch"]}
    made = make(spec({"dateParts": parts}), ROWS)
    assert matrix_names(made.pipeline.features) == [
        "seen_year",
        "seen_month",
        "seen_hour",
        "seen_weekend",
        "seen_epoch",
    ]
    for text in ("2024-03-02T23:30:00Z", "2024-03-02 23:30:00", "2024-03-03T00:30:00+01:00"):
        found = made.pipeline.transform_rows([{"seen": text}])["features"][0]
        assert found[:4].tolist() == [2024, 3, 23, 1]
        assert found[4] == pytest.approx(1709422200, abs=128), "float32"
    with pytest.raises(ValueError, match="row 0: column 'seen' holds 'yesterday', which is no ISO 8601"):
        made.pipeline.transform_rows([{"seen": "yesterday"}])


def test_cyclic_parts_meet_at_their_ends() -> None:
    made = make(spec({"dateParts": {"columns": ["seen"], "parts": ["hour"], "cyclic": True}}), ROWS)
    late, early, noon = made.pipeline.transform_rows(
        [{"seen": f"2024-01-01T{hour}:00:00Z"} for hour in ("23", "00", "12")]
    )["features"]
    assert math.dist(late, early) < 0.3
    assert math.dist(early, noon) > 1.9


def test_columns_are_crossed() -> None:
    made = make(spec({"cross": {"columns": ["price", "visits"]}}, {"cross": {"columns": ["country", "label2"]}},
                     {"encode": {"columns": ["country_x_label2"]}}), ROWS.with_columns(label2=pl.lit("x")))  # fmt: skip
    row = {"price": 2.0, "visits": 3, "country": "de", "label2": "x"}
    found = made.pipeline.transform_rows([row])["features"][0]
    names = matrix_names(made.pipeline.features)
    assert found[names.index("price_x_visits")] == 6.0
    assert found[names.index("country_x_label2=de×x")] == 1.0


def test_text_is_brought_to_one_form() -> None:
    step = {"columns": ["text"], "stripAccents": True, "replaceUrls": True, "replaceMentions": True}
    made = make(spec({"normalizeText": step}, {"tokenize": {"column": "text", "vocabSize": 300}}), ROWS)
    normal = made.pipeline.steps[0].apply(pl.DataFrame({"text": ["  Café\tof @Ann: HTTPS://a.b/c "]}))
    assert normal["text"].to_list() == ["cafe of <user>: https://a.b/c"]
    normal = made.pipeline.steps[0].apply(pl.DataFrame({"text": ["see https://a.b/c and ﬁnd"]}))
    assert normal["text"].to_list() == ["see <url> and find"]


@pytest.mark.parametrize("model", ["bpe", "wordpiece"])
def test_texts_become_token_ids(model: str) -> None:
    made = make(spec({"tokenize": {"column": "text", "model": model, "vocabSize": 400, "maxLength": 12}}), ROWS)
    found = made.pipeline.transform_rows([{"text": "word1 is good"}, {"text": ""}, {"text": "good " * 40}])
    assert found["ids"].shape == (3, 12)
    assert found["lengths"].tolist()[1:] == [1, 12]
    assert (found["ids"][0] != PAD_ID).sum() == found["lengths"][0]
    assert made.pipeline.vocab_size <= 400


def test_tfidf_is_that_of_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    made = make(spec({"tfidf": {"column": "text", "maxFeatures": 500, "minCount": 2}}), ROWS)
    train = raw_train(made, ROWS, "text")["text"].to_list()
    peer = TfidfVectorizer(min_df=2, max_features=500, sublinear_tf=True, token_pattern=r"[^\W_]+")
    peer.fit(train)
    texts = ["word3 is good number word3", "nothing known zzz"]
    found = made.pipeline.transform_rows([{"text": text} for text in texts])
    ours = np.zeros((2, made.pipeline.features[0].width))
    for row in range(2):
        part = slice(*found["text_indptr"][row : row + 2])
        ours[row, found["text_indices"][part]] = found["text_values"][part]
    words = list(made.pipeline.features[0].labels)
    theirs = peer.transform(texts).toarray()
    assert words == list(peer.get_feature_names_out())
    assert np.allclose(ours, theirs, atol=1e-6)


def test_images_are_decoded_resized_and_standardised() -> None:
    import io

    from PIL import Image

    def picture(shade: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (20, 10), (shade, shade, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    frame = pl.DataFrame({"image": [picture(shade) for shade in range(0, 200, 2)], "label": ["a", "b"] * 50})
    made = make(spec({"image": {"column": "image", "height": 4, "width": 6}}), frame)
    stored = arrays(made.train.drop("label"), made.pipeline.features)["image"]
    assert stored.shape == (made.train.height, 3, 4, 6)
    assert stored[:, 0].mean() == pytest.approx(0, abs=1e-4)
    assert stored[:, 0].std() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="row 0: the image column 'image' holds no image"):
        made.pipeline.transform_rows([{"image": b"GIF89a nonsense"}])


class Ratio:
    """A step as a user would write it."""

    def __init__(self, above: str, below: str) -> None:
        self.above, self.below = above, below

    def fit(self, frame: pl.DataFrame) -> dict[str, float]:
        return {"highest": float(frame[self.above].max())}  # type: ignore[arg-type]

    def merge(self, one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
        return {"highest": max(one["highest"], other["highest"])}

    def transform(self, frame: pl.DataFrame, state: dict[str, float]) -> pl.DataFrame:
        ratio = pl.col(self.above) / state["highest"] / (1 + pl.col(self.below))
        return frame.with_columns(ratio.alias("ratio"))


def test_a_step_of_ones_own_is_fitted_and_replayed() -> None:
    custom = {"importPath": f"{__name__}:Ratio", "columns": ["price", "visits"],
              "settings": {"above": "price", "below": "visits"}}  # fmt: skip
    made = make(spec({"custom": custom}, {"scale": {"columns": ["ratio"], "method": "minmax"}}), ROWS, chunk_rows=100)
    assert "ratio" in matrix_names(made.pipeline.features)
    assert made.train["ratio"].max() == 1.0
    again = Pipeline.from_json(made.pipeline.to_json())
    assert again.transform(ROWS).equals(made.pipeline.transform(ROWS))


@pytest.mark.parametrize(
    ("transform", "reason", "said"),
    [
        ({"scale": {"columns": ["agee"]}}, Reason.COLUMN_MISSING, "reads the column 'agee', which is not there"),
        ({"scale": {"columns": ["country"]}}, Reason.SOURCE_MALFORMED, "needs numbers, and the column 'country' holds"),
        ({"tokenize": {"column": "age"}}, Reason.SOURCE_MALFORMED, "needs text, and the column 'age' holds"),
        ({"scale": {"columns": ["label"]}}, Reason.INVALID_PARAMETERS, "changes the target 'label'"),
        (
            {"impute": {"columns": ["age"], "method": "constant", "value": "x"}},
            Reason.INVALID_PARAMETERS,
            "is no number",
        ),
        ({"custom": {"importPath": "no.such:Thing"}}, Reason.INVALID_PARAMETERS, "ModuleNotFoundError"),
        ({"dateParts": {"columns": ["text"]}}, Reason.SOURCE_MALFORMED, "which is no ISO 8601 date"),
    ],
)
def test_a_step_that_cannot_be_taken_says_why(transform: dict[str, object], reason: Reason, said: str) -> None:
    with pytest.raises(UserError) as error:
        make(spec(transform), ROWS)
    assert error.value.reason == reason
    assert said in error.value.message


def test_later_passes_keep_what_steps_read_and_all_where_a_step_may_read_all() -> None:
    from mizzen.data.making import columns_read

    some = spec({"scale": {"columns": ["price"]}}, {"tokenize": {"column": "text"}}, split={"time": "seen"})
    kept = columns_read(some, ROWS.clear())
    assert kept == ["price", "seen", "text", "label", "__hash", "__class"]
    own = spec({"custom": {"importPath": "json:JSONDecoder"}})
    assert columns_read(own, ROWS.clear()) == [*ROWS.columns, "__hash", "__class"]
    assert columns_read(spec(), ROWS.clear()) == [*ROWS.columns, "__hash", "__class"]
