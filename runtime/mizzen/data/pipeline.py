"""The transforms in their fitted state: fitted once on the train split, stored as JSON, replayed in serving."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset import Tokenize, Transform

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 1  # part of every fingerprint: a change of what `transform` gives must count it up
PAD, UNKNOWN = "[PAD]", "[UNK]"
PAD_ID = 0
IDS, LENGTHS = "ids", "lengths"

Arrays = dict[str, np.ndarray[Any, Any]]


class RowError(ValueError):
    """A row that the pipeline cannot take; the message says which and why. A server answers it with 400."""


@dataclass(frozen=True)
class Pipeline:
    """Rows of raw columns to arrays of features. The same object serves training and serving."""

    step: Tokenize
    tokenizer_json: str
    target: str
    classes: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a row must have."""
        return (self.step.column,)

    @property
    def max_length(self) -> int:
        return self.step.max_length

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        tokenizer.enable_truncation(self.max_length)
        tokenizer.enable_padding(pad_id=PAD_ID, pad_token=PAD, length=self.max_length)
        return tokenizer

    def transform_rows(self, rows: Sequence[Mapping[str, Any]]) -> Arrays:
        """`ids` (rows, max_length) int32, padded with 0, and `lengths` (rows,) int32, at least 1 each.

        A missing column, an unknown one, or a value that is not a string raises RowError; the target column
        is allowed and ignored.
        """
        column = self.step.column
        for number, row in enumerate(rows):
            if column not in row:
                there = ", ".join(map(str, row)) or "none"
                raise RowError(f"row {number} lacks the column {column!r}; it has {there}")
            unknown = [name for name in row if name not in (column, self.target)]
            if unknown:
                raise RowError(f"row {number} has an unknown column {unknown[0]!r}; the model reads {column!r}")
            if not isinstance(row[column], str):
                raise RowError(f"row {number}: column {column!r} must be a string, not {type(row[column]).__name__}")
        return self.transform_texts([row[column] for row in rows])

    def transform_texts(self, texts: Sequence[str]) -> Arrays:
        """As transform_rows, for the values of the text column."""
        encoded = self._tokenizer.encode_batch_fast(list(texts)) if texts else []
        ids = np.zeros((len(texts), self.max_length), dtype=np.int32)
        for row, encoding in enumerate(encoded):
            ids[row] = encoding.ids
        # An empty text keeps one padding token: a mean over no tokens is not defined.
        lengths = np.maximum((ids != PAD_ID).sum(axis=1), 1).astype(np.int32)
        return {IDS: ids, LENGTHS: lengths}

    def to_json(self) -> str:
        return json.dumps(
            {
                "format": FORMAT,
                "target": self.target,
                "classes": list(self.classes),
                "steps": [{"tokenize": self.step.to_wire(), "tokenizer": json.loads(self.tokenizer_json)}],
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Pipeline:
        document = json.loads(text)
        if document.get("format") != FORMAT:
            raise ValueError(f"pipeline format {document.get('format')!r}; this version of mizzen reads {FORMAT}")
        (step,) = document["steps"]
        return cls(
            step=Tokenize.model_validate(step["tokenize"]),
            tokenizer_json=json.dumps(step["tokenizer"], ensure_ascii=False),
            target=document["target"],
            classes=tuple(document["classes"]),
        )

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """Read pipeline.json, from a dataset version or from a model folder."""
        return cls.from_json(Path(path).read_bytes())


def the_tokenize_step(transforms: Sequence[Transform]) -> Tokenize:
    """The one step that there must be today."""
    steps = [transform.tokenize for transform in transforms if transform.tokenize is not None]
    if len(steps) != 1:
        raise UserError(
            Reason.COLUMN_MISSING,
            f"spec.transforms has {len(steps)} tokenize steps; text classification needs exactly one, "
            "for example {tokenize: {column: text}}",
        )
    return steps[0]


def fit(step: Tokenize, texts: Iterable[str], target: str, classes: Sequence[str]) -> Pipeline:
    """Train a byte-level BPE tokenizer on the train split's texts: it knows every string, also ones never seen."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=None))
    steps: list[Any] = [normalizers.NFKC()]
    if step.lowercase:
        steps.append(normalizers.Lowercase())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # The byte alphabet is 256 entries; a smaller vocabulary falls back to the bytes that occur, and to [UNK].
    whole = step.vocab_size >= len(alphabet) + 2
    if not whole:
        tokenizer.model = models.BPE(unk_token=UNKNOWN)
    trainer = trainers.BpeTrainer(
        vocab_size=step.vocab_size,
        special_tokens=[PAD, UNKNOWN],
        initial_alphabet=alphabet if whole else [],
        limit_alphabet=len(alphabet) if whole else step.vocab_size // 2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Pipeline(step, tokenizer.to_str(), target, tuple(classes))
