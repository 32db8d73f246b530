"""Progress where a bar cannot move: a line for each tenth, in a log file or a pipe."""

from io import StringIO

from rich.console import Console

from oneword.cli import progress


def _lines(total: int, *, terminal: bool) -> list[str]:
    file = StringIO()
    line = progress.tenths(Console(file=file, force_terminal=terminal))
    for step in range(1, total + 1):
        line(step, total, 1.0 if step > 2 else None, f"{step}/{total}")
    return file.getvalue().splitlines()


def test_a_log_file_gets_a_line_for_each_tenth_but_the_last():
    assert _lines(250, terminal=False) == [f"{25 * n}/250  1 s left" for n in range(1, 10)]


def test_lines_wait_for_the_time_left():
    assert _lines(4, terminal=False) == ["3/4  1 s left"]


def test_a_terminal_gets_the_bar_alone():
    assert _lines(250, terminal=True) == []


def test_counting_says_the_time_left_once_it_is_long(capsys, monkeypatch):
    for short, shown in ((1e9, False), (-1.0, True)):
        monkeypatch.setattr(progress, "SHORT_S", short)
        with progress.counting("drawing") as show:
            for done in range(1, 21):
                show(done, 20)
        err = capsys.readouterr().err
        assert ("drawing: 10/20" in err and " left" in err) is shown
        assert "20/20" in err


def test_time_left_is_said_in_the_unit_that_fits():
    assert progress.time_left(None) == ""
    assert progress.time_left(59.4) == "59 s left"
    assert progress.time_left(130) == "2:10 min left"
    assert progress.time_left(7200) == "2.0 h left"
