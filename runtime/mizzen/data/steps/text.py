"""Text to numbers: token ids of a vocabulary trained on the train split, and TF-IDF weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from mizzen.data.steps.base import Feature, Fitted, Step
from mizzen_api.dataset_transforms import TfIdf, Tokenize

if TYPE_CHECKING:
    import polars as pl
    from tokenizers import Tokenizer

PAD, UNKNOWN = "[PAD]", "[UNK]"
PAD_ID = 0
SAMPLE = 200_000  # texts that a vocabulary is trained on: those with the lowest hashes, where there are more
WORD = r"[\p{L}\p{N}]+(?:['’][\p{L}\p{N}]+)*"


@dataclass(frozen=True)
class Tokens(Fitted):
    """COLUMN becomes a list of `max_length` token ids, padded with 0; COLUMN_length says how many are the text's."""

    KIND: ClassVar[str] = "tokens"

    tokenizer_json: str = ""
    max_length: int = 64

    @cached_property
    def tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        tokenizer.enable_truncation(self.max_length)
        tokenizer.enable_padding(pad_id=PAD_ID, pad_token=PAD, length=self.max_length)
        return tokenizer

    @property
    def vocab_size(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, texts: list[str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """`ids` (rows, max_length) int32 and `lengths` (rows,) int32, at least 1 each: no mean is over no tokens."""
        encoded = self.tokenizer.encode_batch_fast(texts) if texts else []
        ids = np.zeros((len(texts), self.max_length), dtype=np.int32)
        for row, encoding in enumerate(encoded):
            ids[row] = encoding.ids
        return ids, np.maximum((ids != PAD_ID).sum(axis=1), 1).astype(np.int32)

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        (name,) = self.columns
        ids, lengths = self.encode([text or "" for text in frame[name].cast(pl.String).to_list()])
        return frame.with_columns(
            pl.Series(name, ids, dtype=pl.Array(pl.Int32, self.max_length)),
            pl.Series(f"{name}_length", lengths, dtype=pl.Int32),
        )

    def features(self) -> tuple[Feature, ...]:
        return (Feature(self.columns[0], "tokens", self.max_length),)

    def to_wire(self) -> dict[str, Any]:
        """The tokenizer as JSON within JSON, so that a person can read it."""
        return {**super().to_wire(), "tokenizer_json": json.loads(self.tokenizer_json)}

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        text = json.dumps(wire["tokenizer_json"], ensure_ascii=False)
        return cls(tuple(wire["columns"]), text, wire["max_length"])


class TextSample:
    """Texts of the train split: all, or those with the lowest hashes, whatever the chunks were."""

    def __init__(self, column: str, most: int = SAMPLE) -> None:
        self.column, self.most = column, most
        self.table: pl.DataFrame | None = None

    def update(self, frame: pl.DataFrame) -> None:
        import polars as pl

        texts = frame.select(pl.col(self.column).cast(pl.String).alias("text")).drop_nulls()
        self._take(texts.with_columns(pl.col("text").hash(seed=17).alias("hash")))

    def merge(self, other: Self) -> None:
        if other.table is not None:
            self._take(other.table)

    def _take(self, more: pl.DataFrame) -> None:
        import polars as pl

        both = more if self.table is None else pl.concat([self.table, more])
        if both.height > self.most:
            kept = both.with_row_index("at").sort(["hash", "at"]).head(self.most)
            both = kept.sort("at").drop("at")
        self.table = both

    def texts(self) -> list[str]:
        return [] if self.table is None else self.table["text"].to_list()


class TokenizeFit:
    def __init__(self, settings: Tokenize) -> None:
        self.settings, self.sample = settings, TextSample(settings.column)

    def update(self, frame: pl.DataFrame) -> None:
        self.sample.update(frame)

    def merge(self, other: Self) -> None:
        self.sample.merge(other.sample)

    def finish(self) -> Tokens:
        settings = self.settings
        train = train_bpe if settings.model == "bpe" else train_wordpiece
        document = json.loads(train(settings, self.sample.texts()))
        return Tokens((settings.column,), json.dumps(document, ensure_ascii=False), settings.max_length)


class TokenizeStep(Step):
    """`tokenize`."""

    def __init__(self, settings: Tokenize) -> None:
        self.settings = settings
        self.columns = (settings.column,)

    def makes(self) -> tuple[str, ...]:
        return (f"{self.settings.column}_length",)

    def begin(self, frame: pl.DataFrame) -> TokenizeFit:  # noqa: ARG002
        return TokenizeFit(self.settings)


def train_bpe(settings: Tokenize, texts: Iterable[str]) -> str:
    """Byte-level BPE: it knows every string, also ones never seen."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # The byte alphabet is 256 entries; a smaller vocabulary falls back to the bytes that occur, and to [UNK].
    whole = settings.vocab_size >= len(alphabet) + 2
    tokenizer = Tokenizer(models.BPE(unk_token=None if whole else UNKNOWN))
    tokenizer.normalizer = _normalizer(settings)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=[PAD, UNKNOWN],
        initial_alphabet=alphabet if whole else [],
        limit_alphabet=len(alphabet) if whole else settings.vocab_size // 2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def train_wordpiece(settings: Tokenize, texts: Iterable[str]) -> str:
    """WordPiece as BERT has it: words, and their continuations behind ##."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = _normalizer(settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=[PAD, UNKNOWN],
        limit_alphabet=max(1, settings.vocab_size // 2),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def _normalizer(settings: Tokenize) -> Any:
    from tokenizers import normalizers

    steps: list[Any] = [normalizers.NFKC()]
    if settings.lowercase:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(steps)


@dataclass(frozen=True)
class Weights(Fitted):
    """Term frequency times inverse document frequency, rows of length 1; COLUMN_at and COLUMN_weight are lists."""

    KIND: ClassVar[str] = "tfidf"

    words: tuple[str, ...] = ()
    idf: tuple[float, ...] = ()
    ngrams: int = 1
    sublinear: bool = True

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        (name,) = self.columns
        known = pl.DataFrame(
            {"word": self.words, "at": range(len(self.words)), "idf": self.idf},
            schema={"word": pl.String, "at": pl.Int32, "idf": pl.Float64},
        )
        found = terms(frame[name], self.ngrams).join(known, on="word", how="inner")
        counts = found.group_by("row", "at").agg(pl.len().cast(pl.Float64).alias("n"), pl.col("idf").first())
        frequency = (pl.col("n").log() + 1) if self.sublinear else pl.col("n")
        weighed = counts.with_columns((frequency * pl.col("idf")).alias("w")).sort("row", "at")
        lists = weighed.group_by("row", maintain_order=True).agg(
            "at", (pl.col("w") / pl.col("w").pow(2).sum().sqrt()).cast(pl.Float32)
        )
        rows = pl.DataFrame({"row": pl.int_range(frame.height, dtype=pl.UInt32, eager=True)})
        joined = rows.join(lists, on="row", how="left", maintain_order="left")
        return frame.with_columns(
            joined["at"].fill_null([]).alias(f"{name}_at"), joined["w"].fill_null([]).alias(f"{name}_weight")
        ).drop(name)

    def features(self) -> tuple[Feature, ...]:
        return (Feature(self.columns[0], "sparse", len(self.words), labels=self.words),)


def terms(series: pl.Series, ngrams: int) -> pl.DataFrame:
    """(row, word) for each run of up to `ngrams` words, in lower case."""
    import polars as pl

    rows = pl.DataFrame({"row": pl.int_range(len(series), dtype=pl.UInt32, eager=True), "text": series})
    words = rows.select("row", pl.col("text").str.to_lowercase().str.extract_all(WORD).alias("word")).explode("word")
    words = words.drop_nulls("word")
    found = [words]
    for length in range(2, ngrams + 1):
        run = [pl.col("word").shift(-offset).over("row") for offset in range(length)]
        found.append(words.select("row", pl.concat_str(run, separator=" ").alias("word")).drop_nulls("word"))
    return pl.concat(found)


class TfIdfFit:
    """In how many train rows each word occurs."""

    MOST = 500_000

    def __init__(self, settings: TfIdf) -> None:
        self.settings, self.rows = settings, 0
        self.table: pl.DataFrame | None = None

    def update(self, frame: pl.DataFrame) -> None:
        import polars as pl

        self.rows += frame.height
        found = terms(frame[self.settings.column].cast(pl.String), self.settings.ngrams).unique()
        self._take(found.group_by("word").len("n").with_columns(pl.col("n").cast(pl.Int64)))

    def merge(self, other: Self) -> None:
        self.rows += other.rows
        if other.table is not None:
            self._take(other.table)

    def _take(self, more: pl.DataFrame) -> None:
        import polars as pl

        both = more if self.table is None else pl.concat([self.table, more])
        both = both.group_by("word").agg(pl.col("n").sum()).sort(["n", "word"], descending=[True, False])
        self.table = both.head(self.MOST) if both.height > 2 * self.MOST else both

    def finish(self) -> Weights:
        import polars as pl

        assert self.table is not None, "a fit ends after at least one chunk"
        kept = self.table.filter(pl.col("n") >= self.settings.min_count).head(self.settings.max_features).sort("word")
        idf = tuple(math.log((1 + self.rows) / (1 + count)) + 1 for count in kept["n"])
        words = tuple(str(word) for word in kept["word"])
        return Weights((self.settings.column,), words, idf, self.settings.ngrams, self.settings.sublinear)


class TfIdfStep(Step):
    """`tfidf`."""

    def __init__(self, settings: TfIdf) -> None:
        self.settings = settings
        self.columns = (settings.column,)

    def makes(self) -> tuple[str, ...]:
        return (f"{self.settings.column}_at", f"{self.settings.column}_weight")

    def begin(self, frame: pl.DataFrame) -> TfIdfFit:  # noqa: ARG002
        return TfIdfFit(self.settings)
