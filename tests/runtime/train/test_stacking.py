"""Depth that grows in stages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mizzen.errors import UserError
from mizzen.models.text_transformer import TextTransformer, TextTransformerConfig
from mizzen.train.stacking import grow, set_depth, stackable

IDS = torch.randint(1, 50, (6, 9), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([9, 3, 1, 7, 9, 2])


def test_new_blocks_begin_as_copies_with_the_optimizer_s_memory() -> None:
    torch.manual_seed(0)
    model = TextTransformer(TextTransformerConfig(50, 3, 16, 8, num_layers=4, attention_heads=2, dropout=0.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    deep = stackable(model, 4)
    set_depth(deep, 2)
    unused = model.blocks[2].state_dict()["qkv.weight"].clone()
    model(IDS, LENGTHS).square().sum().backward()
    assert all(p.grad is None for p in model.blocks[2].parameters())
    optimizer.step()
    assert torch.equal(model.blocks[2].state_dict()["qkv.weight"], unused), "no decay either: it has no gradient"
    shallow = model(IDS, LENGTHS)
    grow(deep, optimizer, 4)
    for number in (2, 3):
        for mine, copied in zip(model.blocks[number - 2].parameters(), model.blocks[number].parameters(), strict=True):
            assert torch.equal(mine, copied) and mine is not copied and copied.requires_grad
            assert torch.equal(optimizer.state[mine]["exp_avg"], optimizer.state[copied]["exp_avg"])
    assert not torch.equal(model(IDS, LENGTHS), shallow)
    model(IDS, LENGTHS).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_cannot_grow_is_said() -> None:
    with pytest.raises(UserError, match=r"progressive\.depth: Linear has no `blocks`"):
        stackable(nn.Linear(2, 2), 4)
    model = TextTransformer(TextTransformerConfig(50, 3, 16, 8, num_layers=2, attention_heads=2))
    with pytest.raises(UserError, match=r"depth\.to is 4, but the model has 2 blocks"):
        stackable(model, 4)
