"""`mlp`: residual blocks of a small MLP over the numbers of a table.

"Revisiting Deep Learning Models for Tabular Data" (Gorishniy et al., 2021): its ResNet, with LayerNorm, so that a row's
answer does not depend on the other rows of its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class MlpConfig:
    num_features: int
    num_classes: int
    hidden_dim: int = 128
    num_layers: int = 3
    dropout: float = 0.1


class MlpBlock(nn.Module):
    """x + linear(gelu(linear(norm(x))))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, x_BD: Tensor) -> Tensor:
        y_BD: Tensor = x_BD + self.body(x_BD)
        return y_BD


class Mlp(nn.Module):
    """x (B, num_features) to logits or values (B, C)."""

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.stem = nn.Linear(config.num_features, config.hidden_dim)
        self.blocks = nn.ModuleList(MlpBlock(config.hidden_dim, config.dropout) for _ in range(config.num_layers))
        self.active_depth: int | None = None  # fewer while the depth grows in stages
        self.norm = nn.LayerNorm(config.hidden_dim)
        self.head = nn.Linear(config.hidden_dim, config.num_classes)

    def forward(self, x_BF: Tensor) -> Tensor:
        x_BD = self.stem(x_BF)
        for block in self.blocks[: self.active_depth]:
            x_BD = block(x_BD)
        logits_BC: Tensor = self.head(self.norm(x_BD))
        return logits_BC
