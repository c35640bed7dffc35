"""`text-transformer`: a pre-norm encoder over token ids, mean-pooled into a linear classifier.

"Attention Is All You Need" (Vaswani et al., 2017) with the pre-norm placement of Xiong et al. (2020), which
trains without a long warm-up. Shapes as in layers.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from mizzen.models.layers import LockedDropout, masked_mean, token_mask


@dataclass(frozen=True)
class TextTransformerConfig:
    vocab_size: int
    num_classes: int
    max_length: int
    embedding_dim: int = 96
    num_layers: int = 2
    attention_heads: int = 4
    ffn_multiplier: int = 2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.embedding_dim % self.attention_heads:
            raise ValueError(
                f"embedding_dim ({self.embedding_dim}) must be a multiple of attention_heads ({self.attention_heads})"
            )


class Block(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, config: TextTransformerConfig) -> None:
        super().__init__()
        D = config.embedding_dim
        self.heads = config.attention_heads
        self.dropout = config.dropout
        self.norm_attention = nn.LayerNorm(D)
        self.qkv = nn.Linear(D, 3 * D)
        self.out = nn.Linear(D, D)
        self.norm_ffn = nn.LayerNorm(D)
        self.ffn = nn.Sequential(
            nn.Linear(D, config.ffn_multiplier * D), nn.GELU(), nn.Linear(config.ffn_multiplier * D, D)
        )
        self.drop = LockedDropout(config.dropout)

    def forward(self, x_BTD: Tensor, keep_B11T: Tensor) -> Tensor:
        x_BTD = x_BTD + self.drop(self.attend(self.norm_attention(x_BTD), keep_B11T))
        y_BTD: Tensor = x_BTD + self.drop(self.ffn(self.norm_ffn(x_BTD)))
        return y_BTD

    def attend(self, x_BTD: Tensor, keep_B11T: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q_BHTK, k_BHTK, v_BHTK = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        y_BHTK = scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, attn_mask=keep_B11T)
        out_BTD: Tensor = self.out(y_BHTK.transpose(1, 2).reshape(B, T, D))
        return out_BTD


class TextTransformer(nn.Module):
    """ids (B, T) and lengths (B,) to logits (B, C)."""

    def __init__(self, config: TextTransformerConfig) -> None:
        super().__init__()
        D = config.embedding_dim
        self.tokens = nn.Embedding(config.vocab_size, D)
        self.positions = nn.Embedding(config.max_length, D)
        self.drop = LockedDropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.active_depth: int | None = None  # fewer while the depth grows in stages
        self.norm = nn.LayerNorm(D)
        self.head = nn.Linear(D, config.num_classes)
        # Small embeddings keep the residual stream near the scale that LayerNorm and dropout expect.
        nn.init.normal_(self.tokens.weight, std=0.05)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
        keep_BT = token_mask(lengths_B, ids_BT.shape[1])
        x_BTD = self.tokens(ids_BT) + self.positions.weight[: ids_BT.shape[1]]
        x_BTD = self.drop(x_BTD)
        for block in self.blocks[: self.active_depth]:
            x_BTD = block(x_BTD, keep_BT[:, None, None, :])
        logits_BC: Tensor = self.head(masked_mean(self.norm(x_BTD), keep_BT))
        return logits_BC
