"""The rules of staleness as tables, and shards as what they replace: one optimizer over the whole model."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from mizzen.errors import UserError
from mizzen.train import optimizers
from mizzen.train.compression.codecs import Int8, Plain
from mizzen.train.seams import Place, TrainState
from mizzen.train.strategies.base import MODEL, OPTIMIZER, named_tensors
from mizzen.train.strategies.parameter_server.chunks import Shapes, flat, unflat
from mizzen.train.strategies.parameter_server.ledger import Answer, Ledger, Mode, Piece
from mizzen.train.strategies.parameter_server.shard import OptimizerSettings, Push, Shard, ShardState
from mizzen.train.strategies.parameter_server.strategy import ParameterServer
from mizzen.train.strategies.parameter_server.whole import SEEN, Whole, piece_names
from tests.runtime.train.toys import plan

ROWS, BATCH = 100, 32


def ledger(mode: Mode, workers: int = 2, staleness: int = 1, warmup: int = 0, epochs: int = 2) -> Ledger:
    found = Ledger(ROWS, epochs, lambda _: BATCH, mode, staleness, warmup)
    for worker in range(workers):
        found.join(worker)
    return found


def take(found: Ledger, worker: int) -> Piece:
    piece = found.ask(worker)
    assert isinstance(piece, Piece), piece
    return piece


def do(found: Ledger, worker: int, piece: Piece) -> float:
    """Settle, push, finish; the gradient's weight."""
    verdict = found.settle(worker, piece)
    step = found.finish(worker, piece, pushed=bool(verdict.scale))
    if step is not None:
        found.applied(step)
    return verdict.scale


def test_synchronous_workers_wait_for_the_whole_batch() -> None:
    found = ledger("sync")
    first, second = take(found, 0), take(found, 1)
    assert (first.row, first.count, first.index, second.index, first.of) == (0, 32, 0, 1, 2)
    assert found.settle(0, first).scale == 1.0
    assert found.finish(0, first, pushed=True) is None
    assert found.ask(0) is Answer.WAIT
    assert found.settle(1, second) == found.settle(1, second)
    assert found.finish(1, second, pushed=True) == 0
    assert found.ask(1) is Answer.WAIT, "servers have not applied it yet"
    assert found.version == 0
    found.applied(0)
    assert found.version == 1
    assert take(found, 1).row == 32


def test_asynchronous_workers_never_wait_and_stale_gradients_count_less() -> None:
    found = ledger("async")
    slow = take(found, 0)
    assert [do(found, 1, take(found, 1)) for _ in range(5)] == [1.0] * 5
    assert do(found, 0, slow) == pytest.approx(1 / 6)
    assert found.dropped == 0


@pytest.mark.parametrize(("workers", "staleness", "ahead"), [(2, 0, 1), (2, 1, 3), (2, 4, 9), (3, 1, 5), (3, 4, 14)])
def test_nobody_gets_further_ahead_than_the_bound(workers: int, staleness: int, ahead: int) -> None:
    """`staleness` batches while the slowest computes one piece, and the others' parts of one."""
    found = ledger("bounded", workers, staleness, epochs=9)
    slow = take(found, 0)
    pushed = 0
    while isinstance(piece := found.ask(1), Piece):
        do(found, 1, piece)
        pushed += 1
    assert pushed == ahead == found.bound
    assert do(found, 0, slow) == pytest.approx(1 / (1 + ahead))
    assert found.dropped == 0
    assert isinstance(found.ask(1), Piece)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("staleness", [0, 1, 4])
def test_no_gradient_is_staler_than_the_bound_whatever_the_order(staleness: int, seed: int) -> None:
    rng = random.Random(seed)
    found, under_way = ledger("bounded", 4, staleness, warmup=2, epochs=5), dict[int, Piece]()
    used = list[int]()
    while True:
        worker = rng.choices(range(4), weights=[1, 5, 5, 20])[0]
        if worker in under_way:
            piece = under_way.pop(worker)
            verdict = found.settle(worker, piece)
            assert 0 <= verdict.staleness <= found.bound
            used += range(piece.row, piece.row + piece.count)[piece.index :: piece.of]
            step = found.finish(worker, piece, pushed=True)
            if step is not None:
                found.applied(step)
        else:
            answer = found.ask(worker)
            if isinstance(answer, Piece):
                under_way[worker] = answer
            elif answer is Answer.END:
                break
    assert found.dropped == 0
    assert sorted(used) == sorted(5 * list(range(ROWS))), "each row once an epoch"


def test_the_first_steps_are_synchronous_in_all_modes() -> None:
    found = ledger("async", warmup=1)
    first, second = take(found, 0), take(found, 1)
    do(found, 0, first)
    assert found.ask(0) is Answer.WAIT
    do(found, 1, second)
    assert found.version == 1, "one update for the batch"
    third = take(found, 0)
    do(found, 0, third)
    assert found.version == 2
    assert isinstance(found.ask(0), Piece)


def test_the_piece_of_a_dead_worker_goes_to_another() -> None:
    found = ledger("sync", workers=3)
    pieces = [take(found, worker) for worker in range(3)]
    do(found, 0, pieces[0])
    do(found, 1, pieces[1])
    found.leave(2)
    assert take(found, 0) == pieces[2]
    assert do(found, 0, pieces[2]) == 1.0
    assert found.version == 1
    assert [take(found, worker).of for worker in (0, 1)] == [2, 2]


def test_a_dead_workers_clock_leaves_the_bound() -> None:
    found = ledger("bounded", workers=2, staleness=0)
    take(found, 0)
    do(found, 1, take(found, 1))
    assert found.ask(1) is Answer.WAIT
    found.leave(0)
    assert isinstance(found.ask(1), Piece)


def test_a_worker_joins_without_stopping_others() -> None:
    found = ledger("bounded", workers=1, staleness=4)
    first = take(found, 0)
    found.join(1)
    second = take(found, 1)
    assert second.row == 32
    assert second.of == 2
    assert do(found, 0, first) == 1.0


@pytest.mark.parametrize("mode", ["sync", "bounded"])
def test_the_gradient_of_a_worker_that_hung_is_dropped_and_counted(mode: Mode) -> None:
    found = ledger(mode, workers=2, staleness=0)
    hung, other = take(found, 0), take(found, 1)
    do(found, 1, other)
    assert found.ask(1) is Answer.WAIT
    assert found.holding_back() == 0
    found.leave_out(0)
    assert take(found, 1) == hung, "its rows are not lost"
    do(found, 1, hung)
    assert found.settle(0, hung).scale == 0.0
    assert found.finish(0, hung, pushed=False) is None
    assert found.dropped == 1
    assert isinstance(found.ask(0), Piece)


def test_a_gradient_beyond_the_bound_is_dropped_and_its_rows_are_used_later() -> None:
    found = ledger("bounded", workers=4, staleness=1)
    old = take(found, 0)
    for worker in (1, 2, 3) * 2:
        do(found, worker, take(found, worker))
    for worker in (2, 3):
        found.leave(worker)
    assert found.settle(0, old).scale == 0.0
    assert found.dropped == 1
    assert take(found, 1) == old


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_restored_run_does_what_was_not_done(mode: Mode) -> None:
    found = ledger(mode, workers=2, epochs=1)
    first, second = take(found, 0), take(found, 1)
    do(found, 0, first)
    kept = found.to_dict()
    again = ledger(mode, workers=3, epochs=1)
    again.restore(kept)
    undone = {first, second} if mode == "sync" else {second}
    assert {take(again, worker) for worker in range(len(undone))} == undone
    assert again.steps_done == 0
    assert again.position == found.position


def test_steps_and_epochs_count_what_is_done() -> None:
    found = ledger("async", workers=1, epochs=2)
    seen = []
    while isinstance(piece := found.ask(0), Piece):
        do(found, 0, piece)
        seen.append((found.steps_done, found.epochs_done))
    assert seen == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1), (7, 1), (8, 2)]
    assert found.ask(0) is Answer.END


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(7, 11), nn.BatchNorm1d(11), nn.Linear(11, 3))


def gradients(module: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator) for name, value in module.named_parameters()}


@pytest.mark.parametrize("servers", [1, 2, 5])
def test_chunks_are_equally_large_and_whole(servers: int) -> None:
    module = network()
    shapes = Shapes.of(module)
    cut = shapes.cut(servers)
    counts = [sum(chunk.count for chunk in chunks) for chunks in cut]
    assert sum(counts) == shapes.count
    assert max(counts) - min(counts) <= 1
    parameters = dict(module.named_parameters())
    parts = [flat(parameters, chunks) for chunks in cut]
    before = {name: value.clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.data.zero_()
    for part, chunks in zip(parts, cut, strict=True):
        unflat(part, chunks, parameters)
    assert all(torch.equal(before[name], value) for name, value in parameters.items())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("servers", [1, 3])
def test_servers_update_as_one_optimizer_would(servers: int, optimizer: str) -> None:
    """Half of the way, then over whole tensors, as a checkpoint has them, into another number of servers."""
    module = network()
    settings = plan(optimizer=optimizer, momentum=0.9, weight_decay=0.1)
    reference = optimizers.optimizer_of(settings, module)
    module_alike = network()
    shapes = Shapes.of(module_alike)
    whole = Whole(shapes, servers, module_alike.state_dict(), TrainState())
    shards = shards_of(whole, optimizer)
    for step in range(6):
        if step == 3:
            whole.fill([shard.state() for shard in shards], set())
            other = Whole(shapes, 2, network().state_dict(), TrainState())
            other.load(whole.tensors(), [], whole.state)
            whole, shards = other, shards_of(other, optimizer)
        given = gradients(module, step)
        for name, value in module.named_parameters():
            value.grad = given[name].clone()
        for group in reference.param_groups:
            group["lr"] = 0.01 * (step + 1)
        reference.step()
        push(shards, whole, str(step), given, 0.01 * (step + 1))
    whole.fill([shard.state() for shard in shards], set())
    wanted = named_tensors(module, reference)
    found = whole.tensors()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")
    assert f"{MODEL}1.running_mean" in found
    assert any(name.startswith(OPTIMIZER) for name in found)


def shards_of(whole: Whole, optimizer: str = "sgd") -> list[Shard]:
    settings = OptimizerSettings(optimizer, 0.9, 0.1)
    return [Shard(chunks, settings, whole.part(at, 0)) for at, chunks in enumerate(whole.cut)]


def push(shards: list[Shard], whole: Whole, name: str, given: dict[str, Tensor], rate: float) -> None:
    for shard, chunks in zip(shards, whole.cut, strict=True):
        shard.push(Push(name, Plain(), rate), Plain().encode(flat(given, chunks)))


def shard(values: Tensor, seen: list[str] | None = None) -> Shard:
    module = nn.Linear(2, 2, bias=False)
    chunks = Shapes.of(module).cut(1)[0]
    return Shard(chunks, OptimizerSettings("sgd", 0.0, 0.0), ShardState(values, seen=seen or []))


def payload(*values: float) -> Tensor:
    return Plain().encode(torch.tensor(values, dtype=torch.float32))


def test_a_batch_is_the_mean_of_its_pieces() -> None:
    one = shard(torch.zeros(4))
    one.push(Push("a", Plain(), 9.0, share=0.25, gather=True), payload(4, 4, 4, 4))
    one.push(Push("b", Plain(), 9.0, share=0.75, gather=True), payload(8, 0, 0, 0))
    one.push(Push("b", Plain(), 9.0, share=0.75, gather=True), payload(8, 0, 0, 0))  # sent again
    assert one.version == 0
    assert one.apply(0, 0.5) == 1
    assert one.apply(0, 0.5) == 1, "once"
    assert one.values.tolist() == [-3.5, -0.5, -0.5, -0.5]


def test_a_piece_that_comes_after_its_step_is_not_part_of_the_next() -> None:
    one = shard(torch.zeros(4))
    late = Push("a", Plain(), 9.0, share=1.0, gather=True)
    one.push(late, payload(4, 4, 4, 4))
    one.apply(0, 0.5)
    one.push(late, payload(4, 4, 4, 4))
    one.apply(1, 0.5)
    assert one.values.tolist() == [-2, -2, -2, -2]


def test_a_piece_that_was_left_out_does_not_make_the_step_smaller() -> None:
    one = shard(torch.zeros(4))
    one.push(Push("a", Plain(), 9.0, share=0.25, gather=True), payload(4, 4, 4, 4))
    one.apply(0, 0.5)
    assert one.values.tolist() == [-2, -2, -2, -2]
    assert one.apply(1, 0.5) == 2, "a batch without a gradient is no update, but a version"
    assert one.values.tolist() == [-2, -2, -2, -2]


def test_a_push_counts_once_and_by_its_scale_also_after_a_restore() -> None:
    one = shard(torch.zeros(4))
    push_a = Push("a", Plain(), 1.0, scale=0.5)
    assert one.push(push_a, payload(2, 0, 0, 0)) == 1
    assert one.push(push_a, payload(2, 0, 0, 0)) == 1
    assert one.values.tolist() == [-1, 0, 0, 0]
    state = one.state()
    again = shard(state.values, state.seen)
    again.push(push_a, payload(2, 0, 0, 0))
    assert again.values.tolist() == [-1, 0, 0, 0]


def test_pushes_are_compressed() -> None:
    gradient = torch.tensor([1.0, -1.0, 0.5, 0.0]).repeat(8)
    wide = nn.Linear(32, 1, bias=False)
    one = Shard(Shapes.of(wide).cut(1)[0], OptimizerSettings("sgd", 0.0, 0.0), ShardState(torch.zeros(32)))
    one.push(Push("a", Int8(), 1.0), Int8().encode(gradient))
    torch.testing.assert_close(one.values, -gradient, atol=0.02, rtol=0)


def test_a_checkpoint_knows_which_pushes_will_come_again() -> None:
    module = network()
    whole = Whole(Shapes.of(module), 2, module.state_dict(), TrainState())
    shards = shards_of(whole)
    piece = Piece(3, 0, 0, 8, 1, 2)
    given = flat(gradients(module, 0), whole.cut[0])
    shards[0].push(Push(piece.name, Plain(), 0.1), Plain().encode(given))
    shards[0].push(Push("1.0.2", Plain(), 0.1), Plain().encode(given))
    whole.fill([one.state() for one in shards], piece_names([[3, 0, 0, 8, 1, 2]]))
    assert whole.state.extras[SEEN] == {"0": [piece.name]}
    assert whole.part(0, 5).seen == [piece.name]
    assert whole.part(1, 5).seen == []


def test_workers_go_on_with_the_mean_residual() -> None:
    module = network()
    whole = Whole(Shapes.of(module), 1, module.state_dict(), TrainState())
    count = whole.shapes.count
    whole.load(
        whole.tensors(), [{"residual": torch.ones(count)}, {"residual": torch.full((count,), 3.0)}], TrainState()
    )
    assert whole.local_tensors()["residual"].unique().tolist() == [2.0]
    whole.load(whole.tensors(), [{"residual": torch.ones(3)}], TrainState())
    assert not whole.local_tensors()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compression": {"method": "powersgd"}}, "int8, int4 or topk"),
        ({"progressive": {"depth": {"start": 1, "end": 2}}}, "progressive.depth"),
    ],
)
def test_what_does_not_go_with_it_is_told(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ParameterServer(plan(strategy="parameter-server", **changes), Place(), torch.device("cpu"))
