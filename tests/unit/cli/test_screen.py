"""Progress where a bar cannot move: a line for each tenth, in a log file or a pipe."""

from io import StringIO

import pytest

from oneword.cli import screen
from oneword.runs.events import Stepped


def _lines(total: int, *, terminal: bool) -> list[str]:
    file = StringIO()
    with screen.display(screen.Console(file=file, force_terminal=terminal)) as shown:
        bar = shown.bar("steps", total)
        for step in range(1, total + 1):
            bar.show(step, left_s=1.0 if step > 2 else None)
        return [line for line in file.getvalue().splitlines() if line.startswith("steps: ")]


def test_a_log_file_gets_a_line_for_each_tenth_but_the_last():
    assert _lines(250, terminal=False) == [f"steps: {25 * n}/250  1 s left" for n in range(1, 10)]


def test_lines_wait_for_the_time_left():
    assert _lines(4, terminal=False) == ["steps: 3/4  1 s left"]


def test_a_terminal_gets_the_bar_alone():
    assert _lines(250, terminal=True) == []


def test_counting_says_the_time_left_once_it_is_long(capsys, monkeypatch):
    for short, shown in ((1e9, False), (-1.0, True)):
        monkeypatch.setattr(screen, "SHORT_S", short)
        with screen.counting("drawing") as show:
            for done in range(1, 21):
                show(done, 20)
        err = capsys.readouterr().err
        assert ("drawing: 10/20" in err and " left" in err) is shown
        assert "20/20" in err


def test_time_left_is_said_in_the_unit_that_fits():
    assert screen.time_left(None) == ""
    assert screen.time_left(59.4) == "59 s left"
    assert screen.time_left(130) == "2:10 min left"
    assert screen.time_left(7200) == "2.0 h left"


def test_work_of_an_earlier_call_does_not_make_the_rest_seem_short(capsys, monkeypatch):
    monkeypatch.setattr(screen, "SHORT_S", -1.0)
    clock = iter(range(100, 200))
    monkeypatch.setattr(screen.time, "monotonic", lambda: float(next(clock)))
    with screen.counting("steps") as show:
        for done in range(91, 96):
            show(done, 100)
    assert "steps: 92/100  8 s left" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_that_stops_early_leaves_its_numbers_without_a_time_left(terminal):
    file = StringIO()
    step = Stepped(
        job="run", step=3, max_train_steps=9, loss=0.25, best_loss=0.125, best_step=2,
        distance=0.5, learning_rate=1e-3, time_s=3.0, left_s=6.0, evaluated=True,
    )  # fmt: skip
    console = screen.Console(file=file, force_terminal=terminal, width=120)
    with screen.display(console) as shown:
        shown.on_run(step)
    *_, last = (line for line in file.getvalue().splitlines() if "3/9" in line)
    assert "loss 0.2500 (best 0.1250 at 2)  moved 0.50" in last
    assert "6 s left" not in last
    line = "learning: 3/9  loss 0.2500 (best 0.1250 at 2)  moved 0.50  6 s left"
    assert (line in file.getvalue()) is not terminal
