"""Linear layers in fp8, on GPUs that multiply it: inputs and weights as e4m3, their gradients as e5m2.

"FP8 Formats for Deep Learning" (Micikevicius et al., 2022). Each tensor is scaled by its largest value of now, so
that no state is kept between steps. The gradient of the weights is a product in bf16: it adds up over all steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16  # sizes that the hardware multiplies
_TINY = 1e-12


class Float8Linear(nn.Linear):
    """y = x Wᵀ + b, with fp32 weights under their usual names. On a CPU it is a plain linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return linear(x, self.weight, self.bias)
        x_ND = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        y_NE: Tensor = _Product.apply(x_ND, self.weight)  # type: ignore[no-untyped-call]
        y_NE = y_NE if self.bias is None else y_NE + self.bias.to(y_NE.dtype)
        return y_NE.view(*x.shape[:-1], -1)


def to_float8(module: nn.Module) -> int:
    """Put Float8Linear in place of each linear layer whose sizes fit, with the same parameters; how many there are."""
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and not (child.in_features % MULTIPLE or child.out_features % MULTIPLE):
                replaced = Float8Linear(child.in_features, child.out_features, child.bias is not None, device="meta")
                replaced.weight, replaced.bias = child.weight, child.bias
                setattr(parent, name, replaced)
                count += 1
    return count


class _Product(torch.autograd.Function):
    """x (N, D) bf16 and W (E, D) to (N, E) bf16."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_ED: Tensor) -> Tensor:
        ctx.save_for_backward(x_ND, weight_ED)
        x8_ND, x_scale = _cast(x_ND, E4M3)
        w8_ED, w_scale = _cast(weight_ED, E4M3)
        return _multiply(x8_ND, w8_ED.t(), x_scale, w_scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x_ND, weight_ED = ctx.saved_tensors
        g_NE = gradients[0].to(torch.bfloat16).contiguous()
        g8_NE, g_scale = _cast(g_NE, E5M2)
        w8_DE, w_scale = _cast(weight_ED.t().contiguous(), E4M3)
        gx_ND = _multiply(g8_NE, w8_DE.t(), g_scale, w_scale)
        return gx_ND, (g_NE.t() @ x_ND).to(weight_ED.dtype)


def _cast(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """In fp8, and what it must be multiplied with to be x again."""
    largest = torch.finfo(dtype).max
    scale = largest / x.abs().amax().float().clamp(min=_TINY)
    return (x.float() * scale).clamp(-largest, largest).to(dtype), 1.0 / scale


def _multiply(a_ND: Tensor, b_DE: Tensor, a_scale: Tensor, b_scale: Tensor) -> Tensor:
    """`b_DE` is column-major, as the hardware reads it."""
    return torch._scaled_mm(a_ND, b_DE, scale_a=a_scale, scale_b=b_scale, out_dtype=torch.bfloat16)
