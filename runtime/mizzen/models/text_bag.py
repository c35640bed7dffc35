"""`text-bag`: the mean of token embeddings into a small MLP; fast, and the model to beat.

"Bag of Tricks for Efficient Text Classification" (Joulin et al., 2016) with one hidden layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mizzen.models.layers import masked_mean, token_mask


@dataclass(frozen=True)
class TextBagConfig:
    vocab_size: int
    num_classes: int
    max_length: int
    embedding_dim: int = 64
    hidden_dim: int = 128
    dropout: float = 0.3


class TextBag(nn.Module):
    """ids (B, T) and lengths (B,) to logits (B, C)."""

    def __init__(self, config: TextBagConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.mlp = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(config.embedding_dim, config.hidden_dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_dim, config.num_classes),
        )
        nn.init.normal_(self.tokens.weight, std=0.1)

    def forward(self, ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
        keep_BT = token_mask(lengths_B, ids_BT.shape[1])
        logits_BC: Tensor = self.mlp(masked_mean(self.tokens(ids_BT), keep_BT))
        return logits_BC
