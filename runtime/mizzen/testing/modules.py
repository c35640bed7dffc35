"""Whether a module works at all: it answers, it learns with all its parts, and it can learn one batch by heart."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from mizzen.testing.subjects import Checked, Inputs, Subject, seeded, subject_of

Loss = Callable[[Tensor, Tensor], Tensor]
_STEPS = 3  # where a block starts as zero, the parameters behind it get gradients from the second step on
_RATES = (3e-3, 3e-2, 3e-4)


def check_forward(model: Checked, inputs: Inputs = None, *, outputs: int | None = None) -> Tensor:
    """Call the model and give its answer: finite numbers, one row for each row of the inputs.

    `outputs` is how many columns the answer must have; a model of Mizzen's knows.
    """
    __tracebackhide__ = True
    subject = subject_of(model, inputs)
    answer = subject.answer()
    wanted = outputs or (subject.data.outputs if subject.data else None)
    shape = f"{subject.name} answers {subject.rows} rows with shape {tuple(answer.shape)}"
    assert answer.ndim and len(answer) == subject.rows, f"{shape}: the first size must be that of the rows"
    if wanted is not None:
        fits = tuple(answer.shape[1:]) == (wanted,) or (wanted == 1 and answer.ndim == 1)
        assert fits, f"{shape}, not ({subject.rows}, {wanted})"
    assert answer.is_floating_point(), (
        f"{subject.name} answers with {answer.dtype}: logits and values are floating-point"
    )
    _finite(answer, f"{subject.name}'s answer")
    return answer


def check_backward(
    model: Checked,
    inputs: Inputs = None,
    targets: Tensor | None = None,
    *,
    loss: Loss | None = None,
    without: Sequence[str] = (),
) -> None:
    """Take three small steps with a copy: loss and gradients are finite, and each parameter gets one that is not zero.

    `targets` are numbers of classes or floating-point values, random unless given or in the rows. `loss(outputs,
    targets)` is cross entropy or squared error. `without` names parameters that need no gradient, such as "head.*".
    """
    __tracebackhide__ = True
    subject = subject_of(model, inputs)
    module = copy.deepcopy(subject.module).train()
    wanting = {name: value for name, value in module.named_parameters() if value.requires_grad}
    assert wanting, f"{subject.name} has no parameter that wants a gradient: it cannot learn"
    unused, zero = dict(wanting), dict(wanting)
    optimizer = torch.optim.SGD(wanting.values(), lr=0.05)
    with seeded():
        targets = _targets(subject, targets)
        for step in range(_STEPS):
            optimizer.zero_grad()
            _backward(module, subject, loss or _loss_for(targets), targets, step)
            for name, value in wanting.items():
                if value.grad is not None:
                    unused.pop(name, None)
                    _finite(value.grad, f"the gradient of {name}")
                    if value.grad.any():
                        zero.pop(name, None)
            nn.utils.clip_grad_norm_(wanting.values(), 1.0)
            optimizer.step()
    needed = [name for name in wanting if not any(fnmatchcase(name, pattern) for pattern in without)]
    _none_of(unused, needed, "no gradient: the loss does not depend on")
    _none_of(zero, needed, f"a gradient of nothing but zeros in all {_STEPS} steps: nothing reaches")


def overfits_one_batch(
    model: Checked,
    inputs: Inputs = None,
    targets: Tensor | None = None,
    *,
    loss: Loss | None = None,
    below: float = 0.05,
    steps: int = 200,
) -> float:
    """Train a copy on one batch until its mean loss is under `below`, and give that loss.

    What cannot learn a few rows by heart has a defect: see Karpathy, "A recipe for training neural networks" (2019).
    AdamW, without dropout, at up to three learning rates. Targets and loss are those of `check_backward`; ValueError
    where two rows are the same and their targets are not.
    """
    __tracebackhide__ = True
    subject = subject_of(model, inputs)
    with seeded():
        targets = _targets(subject, targets)
    _no_contradiction(subject.inputs, targets)
    found = []
    for rate in _RATES:
        with seeded():
            found.append(_learn(subject, loss or _loss_for(targets), targets, rate, below, steps))
        if found[-1] <= below:
            return found[-1]
    reached = min((value for value in found if math.isfinite(value)), default=math.nan)
    rates = ", ".join(f"{rate:g}" for rate in _RATES)
    raise AssertionError(
        f"{subject.name} does not learn one batch of {subject.rows} rows by heart: after {steps} steps its loss is "
        f"{reached:.3g} at best, not under {below:g} (learning rates {rates}). Look for a part without gradient "
        "(check_backward), inputs that it does not read, or an answer that went through softmax before the loss"
    )


def _learn(subject: Subject, loss: Loss, targets: Tensor, rate: float, below: float, steps: int) -> float:
    """The mean loss that is reached; stops as soon as it is under `below`."""
    module = copy.deepcopy(subject.module).train()
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.eval()
    wanting = [value for value in module.parameters() if value.requires_grad]
    assert wanting, f"{subject.name} has no parameter that wants a gradient: it cannot learn"
    optimizer = torch.optim.AdamW(wanting, lr=rate, weight_decay=0.0)
    reached = math.inf
    for step in range(steps + 1):
        optimizer.zero_grad()
        reached = _backward(module, subject, loss, targets, step, must_be_finite=step == 0)
        if reached <= below or not math.isfinite(reached):
            break
        nn.utils.clip_grad_norm_(wanting, 1.0)
        optimizer.step()
    return reached


def _backward(
    module: nn.Module, subject: Subject, loss: Loss, targets: Tensor, step: int, *, must_be_finite: bool = True
) -> float:
    __tracebackhide__ = True
    value = loss(module(*subject.inputs), targets)
    assert value.requires_grad, f"{subject.name}'s answer has no graph: it is detached, or made under torch.no_grad()"
    assert not must_be_finite or value.isfinite(), f"the loss is {value.item()} in step {step}"
    value.backward()  # type: ignore[no-untyped-call]
    return value.item()


def _targets(subject: Subject, given: Tensor | None) -> Tensor:
    """Given, brought by the rows, or random: classes where there are several outputs, else numbers."""
    made = given if given is not None else subject.targets
    if made is None:
        answer = subject.answer()
        classes = answer.shape[-1] if answer.ndim > 1 else 1
        made = torch.randint(classes, (subject.rows,)) if classes > 1 else torch.randn(subject.rows)
        if classes > 1 and subject.rows > 1:
            made[0], made[1] = 0, 1  # one class alone is learnt without looking at the inputs
    if len(made) != subject.rows:
        raise ValueError(f"there are {subject.rows} rows and {len(made)} targets")
    return made.to(subject.inputs[0].device)


def _loss_for(targets: Tensor) -> Loss:
    if targets.is_floating_point():
        return lambda outputs, values: mse_loss(outputs.float().reshape(values.shape), values.float())
    return lambda outputs, classes: cross_entropy(outputs.float(), classes)


def _no_contradiction(inputs: tuple[Tensor, ...], targets: Tensor) -> None:
    for row in range(len(targets)):
        for other in range(row):
            same = all(torch.equal(part[row], part[other]) for part in inputs)
            if same and not torch.equal(targets[row], targets[other]):
                raise ValueError(f"rows {other} and {row} are the same to the model, and their targets are not")


def _finite(values: Tensor, what: str) -> None:
    __tracebackhide__ = True
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        first = tuple(bad[0].tolist())
        count = f"{len(bad)} of {values.numel()} numbers are not finite"
        raise AssertionError(f"{what} is {values[first].item()} at {list(first)}: {count}")


def _none_of(found: dict[str, nn.Parameter], needed: Sequence[str], what: str) -> None:
    __tracebackhide__ = True
    names = [name for name in needed if name in found]
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise AssertionError(f"{len(names)} of {len(needed)} parameters get {what} {', '.join(names[:5])}{more}")
