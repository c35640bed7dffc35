"""Whether a module computes and learns: forward, backward, and a batch learnt by heart. The model stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from mizzen.models.loading import Model
from mizzen.testing.asking import Inputs, answer, evaluating, fail, listed, module_and_tensors

Loss = Callable[[Tensor, Tensor], Tensor]

_NUDGES = 3  # steps in which a parameter must get a gradient: of a branch that starts at zero the first is zero
_NUDGE = 1e-2
_LEARNT_LOSS = 0.1  # cross entropy of a batch that is known by heart
_LEARNT_SHARE = 0.01  # of the targets' variance
_NAMES = 5  # parameters that a message lists


def check_forward(model: nn.Module, inputs: Inputs, outputs: int | None = None) -> Tensor:
    """One pass in evaluation mode: a floating-point answer (rows, outputs), all finite. Returns it.

    `inputs` are rows for what mizzen.models loads, which knows its outputs, and tensors for a torch.nn.Module.
    """
    __tracebackhide__ = True
    module, tensors = module_and_tensors(model, inputs)
    outputs = model.data.outputs if outputs is None and isinstance(model, Model) else outputs
    with evaluating(module):
        said = answer(module, tensors)
    rows, name = len(tensors[0]), type(module).__name__
    if said.dim() == 0 or said.shape[0] != rows or (outputs is not None and said.shape != (rows, outputs)):
        fail(
            f"{name} answered {tuple(said.shape)} for {rows} rows, not {(rows, '...' if outputs is None else outputs)}"
        )
    if not said.is_floating_point():
        fail(f"{name} answered with {said.dtype}, not with floating-point numbers")
    bad = (~torch.isfinite(said)).reshape(rows, -1).any(dim=1).nonzero().flatten().tolist()
    if bad:
        fail(
            f"the answer is not finite for {len(bad)} of {rows} rows, first for row {bad[0]}{_source(module, tensors)}"
        )
    return said


def check_backward(
    model: nn.Module,
    inputs: Inputs,
    targets: Tensor | Sequence[Any] | None = None,
    *,
    loss: Loss | None = None,
    unused: Sequence[str] = (),
) -> None:
    """Every trainable parameter gets a finite gradient that is not all zero, within three small steps in training mode.

    Without targets (nor a target in the rows) the loss is a random projection of the answer. `unused` are patterns, as
    "head.*", of parameters that need none.
    """
    __tracebackhide__ = True
    source, tensors = module_and_tensors(model, inputs)
    module = copy.deepcopy(source).train()
    wanted = _targets(model, inputs, targets)
    parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
    reached: set[str] = set()
    moved: set[str] = set()
    with torch.random.fork_rng(), torch.enable_grad():
        for _ in range(_NUDGES):
            torch.manual_seed(0)
            module.zero_grad()
            lost = _lost(answer(module, tensors), wanted, loss)
            if not torch.isfinite(lost):
                fail(f"the loss is {lost.item()}{_source(module, tensors)}")
            lost.backward()  # type: ignore[no-untyped-call]
            for name, value in parameters.items():
                if value.grad is None:
                    continue
                if not torch.isfinite(value.grad).all():
                    fail(f"the gradient of {name} {tuple(value.shape)} is not finite")
                reached.add(name)
                if value.grad.count_nonzero():
                    moved.add(name)
                with torch.no_grad():
                    value -= _NUDGE * value.grad / (value.grad.norm() + 1e-12)
    asked = [name for name in parameters if not any(fnmatchcase(name, pattern) for pattern in unused)]
    _check_all(asked, reached, "get no gradient: nothing of the answer depends on them")
    _check_all(asked, moved, "get a gradient of zero only")


def check_overfits_one_batch(
    model: nn.Module,
    inputs: Inputs,
    targets: Tensor | Sequence[Any] | None = None,
    *,
    steps: int = 200,
    learning_rate: float = 1e-2,
    loss: Loss | None = None,
) -> list[float]:
    """The module learns these rows by heart, as it must if all is wired up. Returns the losses.

    It is trained with AdamW and without dropout. A loaded model is built anew first: what it learnt is not asked for.
    Learnt are classes when all are right with a cross entropy below 0.1, numbers when the error is 1 % of their
    variance. `targets` are classes (integers, or names for a loaded model) or numbers.
    """
    __tracebackhide__ = True
    source, tensors = module_and_tensors(model, inputs)
    wanted = _targets(model, inputs, targets)
    if wanted is None:
        raise ValueError("check_overfits_one_batch needs targets, or rows that have the target's column")
    if not wanted.dtype.is_floating_point:
        _check_no_twins(tensors, wanted)
    losses: list[float] = []
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        module = _without_dropout(model.trained.recipe.build() if isinstance(model, Model) else copy.deepcopy(source))
        optimizer = torch.optim.AdamW(module.parameters(), learning_rate, weight_decay=0.0)
        for _ in range(steps):
            said = answer(module, tensors)
            lost = _lost(said, wanted, loss)
            losses.append(lost.item())
            if _learnt(said.detach(), wanted, losses[-1]):
                return losses
            optimizer.zero_grad()
            lost.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    fail(
        f"{len(wanted)} rows are not learnt after {steps} steps: the loss went from {losses[0]:.4g} to {losses[-1]:.4g}"
        "; look for a missing nonlinearity, a detached part, a learning rate that does not fit, or shuffled targets"
    )


def _targets(model: nn.Module, inputs: Inputs, given: Tensor | Sequence[Any] | None) -> Tensor | None:
    """Numbers of classes (N,) int64, or (N,) float32 with mean 0 and deviation 1."""
    if given is None and isinstance(model, Model) and not isinstance(inputs, (Tensor, tuple)):
        name = model.pipeline.target.name
        rows = listed(inputs)
        if all(name in row for row in rows):
            given = [row[name] for row in rows]
    if given is None:
        return None
    if isinstance(model, Model) and model.classes and not isinstance(given, Tensor):
        given = [model.classes.index(value) if isinstance(value, str) else value for value in given]
    made = torch.as_tensor(given)
    if not made.dtype.is_floating_point:
        if isinstance(model, Model) and not model.classes:
            made = made.float()
        else:
            return made.long()
    made = made.float().reshape(-1)
    return (made - made.mean()) / (made.std(correction=0) + 1e-12)


def _lost(said: Tensor, wanted: Tensor | None, loss: Loss | None) -> Tensor:
    if wanted is None:
        return (
            said.float() * torch.randn(said.shape, generator=torch.Generator().manual_seed(1)).to(said.device)
        ).mean()
    wanted = wanted.to(said.device)
    if loss is not None:
        return loss(said, wanted)
    if wanted.dtype.is_floating_point:
        return mse_loss(said.float().reshape(-1), wanted)
    return cross_entropy(said.float(), wanted)


def _learnt(said: Tensor, wanted: Tensor, loss: float) -> bool:
    if wanted.dtype.is_floating_point:
        return loss < _LEARNT_SHARE
    return loss < _LEARNT_LOSS and bool((said.argmax(dim=-1) == wanted.to(said.device)).all())


def _without_dropout(module: nn.Module) -> nn.Module:
    module.train()
    for part in module.modules():
        if "dropout" in type(part).__name__.lower():
            part.eval()
    return module


def _check_no_twins(tensors: tuple[Tensor, ...], wanted: Tensor) -> None:
    seen: dict[tuple[bytes, ...], int] = {}
    for row in range(len(wanted)):
        key = tuple(part[row].cpu().numpy().tobytes() for part in tensors)
        first = seen.setdefault(key, row)
        if wanted[first] != wanted[row]:
            fail(f"rows {first} and {row} are the same to the model and have different targets: nothing can learn both")


def _check_all(asked: Sequence[str], reached: set[str], what: str) -> None:
    __tracebackhide__ = True
    left = [name for name in asked if name not in reached]
    if left:
        more = f" and {len(left) - _NAMES} more" if len(left) > _NAMES else ""
        fail(f"{len(left)} of {len(asked)} parameters {what}: {', '.join(left[:_NAMES])}{more}")


def _source(module: nn.Module, tensors: tuple[Tensor, ...]) -> str:
    """Where numbers first stop being finite: in an input, a weight, or the answer of a part."""
    for number, part in enumerate(tensors):
        if part.is_floating_point() and not torch.isfinite(part).all():
            return f"; input {number} is not finite already"
    for name, value in module.named_parameters():
        if not torch.isfinite(value).all():
            return f"; the weight {name} is not finite"
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_part: nn.Module, _inputs: Any, said: Any) -> None:
            if isinstance(said, Tensor) and not torch.isfinite(said).all():
                found.append(name)

        return hook

    hooks = [part.register_forward_hook(look(name)) for name, part in module.named_modules() if name]
    with evaluating(module):
        module(*tensors)
    for hook in hooks:
        hook.remove()
    return f"; the first part that answers so is {found[0]}" if found else ""
