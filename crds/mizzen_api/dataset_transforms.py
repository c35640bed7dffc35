"""The steps of a Dataset from raw columns to features, each with its settings. A transform names exactly one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mizzen_api.meta import ApiModel, rules

ColumnName = Annotated[str, Field(min_length=1, max_length=256)]
Columns = Annotated[list[ColumnName], Field(max_length=1024)]


class Scale(ApiModel):
    """Bring numbers to a common range. Missing values stay missing: impute first."""

    columns: Columns = Field(default_factory=list, description="Number columns; all of them when empty.")
    method: Literal["minmax", "standard", "robust", "quantile"] = Field(
        "standard",
        description="minmax: to 0..1. standard: mean 0, deviation 1. robust: median 0, interquartile range 1. "
        "quantile: to the rank among the train split's values, 0..1.",
    )


class Encode(ApiModel):
    """Turn categories into numbers."""

    columns: Columns = Field(default_factory=list, description="Category columns; all text columns when empty.")
    method: Literal["onehot", "ordinal", "target", "hashing"] = Field(
        "onehot",
        description="onehot: a column for each category. ordinal: the category's number, by name. target: the mean of "
        "the target over the category's train rows, smoothed. hashing: one of `buckets` columns, without a vocabulary.",
    )
    handle_unknown: Literal["ignore", "error"] = Field(
        "ignore",
        description="A category that the train split does not have: ignore gives zeros (onehot), -1 (ordinal) or the "
        "overall mean (target); error refuses the row.",
    )
    max_categories: int = Field(
        1000, description="Most frequent categories that are kept; the rest counts as unknown.", ge=1, le=1_000_000
    )
    buckets: int = Field(64, description="Columns that hashing fills.", ge=2, le=65536)
    smoothing: float = Field(10.0, description="Rows' worth of the overall mean that target encoding adds.", ge=0)


class Impute(ApiModel):
    """Fill missing values; NaN counts as missing."""

    columns: Columns = Field(default_factory=list, description="Columns; all that are numbers or text when empty.")
    method: Literal["mean", "median", "mostFrequent", "constant"] = Field(
        "median",
        description="Value to fill with; text columns take the most frequent one where mean or median is asked.",
    )
    value: str | None = Field(None, description="What constant fills in, read as the column's type.", max_length=1024)
    indicator: bool = Field(False, description="Add a column COLUMN_missing that is 1 where a value was filled.")


class Clip(ApiModel):
    """Cut outliers to the nearest bound."""

    columns: Columns = Field(default_factory=list, description="Number columns; all of them when empty.")
    lower: float | None = Field(None, description="Lowest value, where not by quantile.")
    upper: float | None = Field(None, description="Highest value, where not by quantile.")
    lower_quantile: float | None = Field(None, description="Lowest value as a quantile of the train split.", ge=0, le=1)
    upper_quantile: float | None = Field(
        None, description="Highest value as a quantile of the train split.", ge=0, le=1
    )


class Bucketize(ApiModel):
    """Replace a number by the number of its interval."""

    model_config = rules(
        (
            "!(has(self.boundaries) && size(self.boundaries) > 0 && has(self.buckets))",
            "set boundaries or buckets, not both",
        )
    )

    columns: Columns = Field(min_length=1, description="Number columns.")
    boundaries: list[float] = Field(
        default_factory=list, description="Ascending bounds; a value on a bound belongs above it.", max_length=4096
    )
    buckets: int | None = Field(
        None,
        description="Intervals with like many train rows each, where there are no boundaries; 10 by default.",
        ge=2,
        le=4096,
    )


class Log(ApiModel):
    """Natural logarithm of 1 + x; values below 0 keep their sign: -log(1 - x)."""

    columns: Columns = Field(min_length=1, description="Number columns.")


DatePart = Literal["year", "month", "day", "weekday", "hour", "minute", "dayOfYear", "week", "epoch", "weekend"]


class DateParts(ApiModel):
    """Take a date or time apart into columns COLUMN_PART, and drop it."""

    columns: Columns = Field(min_length=1, description="Columns of dates or times, also as ISO 8601 text.")
    parts: list[DatePart] = Field(
        default=["year", "month", "day", "weekday", "hour"],
        description="Which numbers to take; epoch is seconds since 1970 in UTC.",
        min_length=1,
        max_length=10,
    )
    cyclic: bool = Field(
        False, description="Give month, weekday, hour and the like as sine and cosine, so that ends meet."
    )


class Cross(ApiModel):
    """Combine columns into a new one, named A_x_B: the product of numbers, or the pair of categories."""

    columns: Columns = Field(min_length=2, max_length=4, description="Columns to combine.")
    name: ColumnName | None = Field(None, description="Name of the new column.")


class NormalizeText(ApiModel):
    """Bring text to one form."""

    columns: Columns = Field(min_length=1, description="Text columns.")
    lowercase: bool = Field(True, description="Fold case.")
    unicode: Literal["none", "NFC", "NFKC"] = Field("NFKC", description="Unicode normal form.")
    strip_accents: bool = Field(False, description="Remove accents.")
    replace_urls: bool = Field(False, description="Put <url> for web addresses.")
    replace_mentions: bool = Field(False, description="Put <user> for @names.")
    collapse_whitespace: bool = Field(True, description="One space for each run of white space, none at the ends.")


class Tokenize(ApiModel):
    """Turn a text column into token ids with a vocabulary that is trained on the train split."""

    column: str = Field(description="Text column.", min_length=1, max_length=256)
    model: Literal["bpe", "wordpiece"] = Field("bpe", description="How words are cut into pieces.")
    vocab_size: int = Field(8192, description="Entries of the vocabulary.", ge=64, le=262144)
    max_length: int = Field(64, description="Tokens kept of each text; longer texts are cut.", ge=1, le=8192)
    lowercase: bool = Field(True, description="Fold case before tokenising.")


class TfIdf(ApiModel):
    """Turn a text column into weights of its words."""

    column: str = Field(description="Text column.", min_length=1, max_length=256)
    max_features: int = Field(4096, description="Words that are kept, the most frequent first.", ge=1, le=1_000_000)
    min_count: int = Field(2, description="Train rows that a word must occur in.", ge=1, le=2**31 - 1)
    ngrams: int = Field(1, description="Longest run of words that counts as one.", ge=1, le=3)
    sublinear: bool = Field(True, description="Count a word n times as 1 + log n.")


class Image(ApiModel):
    """Decode, resize and normalise an image column; augmentations happen at training time only."""

    model_config = rules(
        (
            "!has(self.augment) || self.augment.all(a, self.augment.exists_one(b, a == b))",
            "augment names each step once",
        )
    )

    column: str = Field("image", description="Column of image bytes.", min_length=1, max_length=256)
    height: int = Field(32, description="Height in pixels.", ge=1, le=4096)
    width: int = Field(32, description="Width in pixels.", ge=1, le=4096)
    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for colour.")
    normalize: bool = Field(True, description="Mean 0 and deviation 1 for each channel, by the train split; else 0..1.")
    augment: list[Literal["flip", "crop", "rotate", "jitter"]] = Field(
        default_factory=list, description="Random changes of training images.", max_length=4
    )


class Custom(ApiModel):
    """A step of your own."""

    import_path: str = Field(
        description="MODULE:CLASS with fit(frame), merge(a, b) and transform(frame, state); states are JSON.",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        max_length=512,
    )
    columns: Columns = Field(default_factory=list, description="Columns that it reads; all when empty.")
    settings: dict[str, str] = Field(default_factory=dict, description="Passed to the class as keyword arguments.")


STEPS = (
    "scale", "encode", "impute", "clip", "bucketize", "log", "dateParts", "cross", "normalizeText", "tokenize", "tfidf",
    "image", "custom",
)  # fmt: skip
_ONE = " + ".join(f"(has(self.{step}) ? 1 : 0)" for step in STEPS) + " == 1"


class Transform(ApiModel):
    """One step from raw columns to features. Fitted on the train split only and replayed in serving."""

    model_config = rules((_ONE, f"a transform names exactly one step of {', '.join(STEPS)}"))

    scale: Scale | None = Field(None, description="Numbers to a common range.")
    encode: Encode | None = Field(None, description="Categories to numbers.")
    impute: Impute | None = Field(None, description="Missing values filled.")
    clip: Clip | None = Field(None, description="Outliers cut.")
    bucketize: Bucketize | None = Field(None, description="Numbers to intervals.")
    log: Log | None = Field(None, description="Numbers to their logarithm.")
    date_parts: DateParts | None = Field(None, description="Dates to numbers.")
    cross: Cross | None = Field(None, description="Columns combined.")
    normalize_text: NormalizeText | None = Field(None, description="Text to one form.")
    tokenize: Tokenize | None = Field(None, description="Text to token ids.")
    tfidf: TfIdf | None = Field(None, description="Text to weights of words.")
    image: Image | None = Field(None, description="Images to arrays.")
    custom: Custom | None = Field(None, description="A step of your own.")

    @property
    def step(self) -> ApiModel:
        """The one step that is set."""
        found: list[ApiModel] = [
            value for name in type(self).model_fields if (value := getattr(self, name)) is not None
        ]
        if len(found) != 1:
            raise ValueError(f"a transform names exactly one step, not {len(found)}")
        return found[0]
