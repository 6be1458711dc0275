"""What a long command shows of itself: a bar on a terminal, lines otherwise."""

import io

import pytest

from xmppd.admin.progress import ProgressBar, clock_time


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_lines_where_nobody_looks():
    stream, clock = io.StringIO(), Clock()
    bar = ProgressBar(stream, clock=clock)
    bar.begin("copying", 40_000)
    for _ in range(30):
        clock.time += 1
        bar.advance(1000)
    bar.end()
    assert stream.getvalue().splitlines() == [
        "copying: 10,000 rows  25%  1,000 rows/s  0:30 left",
        "copying: 20,000 rows  50%  1,000 rows/s  0:20 left",
        "copying: 30,000 rows  75%  1,000 rows/s  0:10 left",
        "copying: 30,000 rows  75%  1,000 rows/s  0:10 left",
    ]


def test_a_bar_on_a_terminal():
    stream, clock = Terminal(), Clock()
    bar = ProgressBar(stream, clock=clock)
    bar.begin("copying", 200)
    for _ in range(2):
        clock.time += 1
        bar.advance(100)
        bar.advance(0)
    bar.end()
    half, full, last = stream.getvalue().split("\r\x1b[K")[1:]
    assert half == "copying: [############............]  100 rows  50%  100 rows/s  0:01 left"
    assert full == "copying: [########################]  200 rows  100%  100 rows/s"
    assert last == f"{full}\n"


def test_what_was_done_earlier_makes_no_rate():
    stream, clock = io.StringIO(), Clock()
    bar = ProgressBar(stream, clock=clock)
    bar.begin("copying", 1000, 500)
    clock.time += 10
    bar.advance(100)
    assert stream.getvalue() == "copying: 600 rows  60%  10 rows/s  0:40 left\n"


def test_a_stage_of_unknown_size():
    stream, clock = io.StringIO(), Clock()
    bar = ProgressBar(stream, clock=clock)
    bar.begin("counting")
    clock.time += 20
    bar.advance(100)
    assert stream.getvalue() == "counting: 100 rows  5 rows/s\n"


@pytest.mark.parametrize("total", [0, 5])
def test_more_than_there_were(total):
    stream = io.StringIO()
    bar = ProgressBar(stream, clock=Clock())
    bar.begin("comparing", total)
    bar.advance(9)
    bar.end()
    assert stream.getvalue() in ("comparing: 9 rows\n", "comparing: 9 rows  100%\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (750, "12:30"), (3723, "1:02:03")]
)
def test_times(seconds, text):
    assert clock_time(seconds) == text
