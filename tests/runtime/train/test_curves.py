"""Learning curves that outlive a head."""

from __future__ import annotations

from pathlib import Path

from mizzen.train.curves import CURVES_FILE, Curves


def test_a_new_head_goes_on_with_the_curves_of_the_last(tmp_path: Path) -> None:
    first = Curves(tmp_path)
    for step in (10, 20, 30):
        first.add(step, {"loss": 1 / step})
    with (tmp_path / CURVES_FILE).open("a") as file:
        file.write('[40, {"lo')  # it died here
    second = Curves(tmp_path)
    assert second.points == first.points == [(10, {"loss": 0.1}), (20, {"loss": 0.05}), (30, {"loss": 1 / 30})]
    second.add(25, {"loss": 0.5})
    second.add(25, {"validation_loss": 0.7})
    assert [step for step, _ in second.points] == [10, 20, 25], "what is done again replaces what it gave before"
    assert second.points[-1][1] == {"loss": 0.5, "validation_loss": 0.7}
    assert Curves(tmp_path).points == second.points
    assert Curves(tmp_path / "other").points == []
