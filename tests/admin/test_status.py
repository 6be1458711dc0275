"""`status` for people."""

import pytest

from xmppd.admin.render import line_of
from xmppd.admin.status import duration, size, status_text

SHOWN = """\
server
  version  1.0
  pid      12345
  uptime   1 h 1 min

sessions
  sessions  12,345

process
  memory     61.6 MiB
  heap used  31.5 MiB
  heap free  512 bytes

store
  reads           5
  mean wait       7 \u00b5s
  no such column  -

other
  new figure  x\\n"""


def test_groups_and_units():
    status = {
        "new_figure": "x\n",
        "version": "1.0",
        "pid": 12345,
        "uptime_seconds": 3661.5,
        "sessions": 12345,
        "memory_mib": 61.6,
        "heap": {"used": 33069136, "free": 512},
        "store": {"reads": 5, "mean_wait_microseconds": 7, "no_such_column": None},
        "http": {},
    }
    assert status_text(status) == SHOWN


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (3600, "1 h 0 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB"), (2**40, "1,024.0 GiB")]
)
def test_sizes(number, text):
    assert size(number) == text


def test_a_record_is_a_line_and_its_stanza_another_one():
    record = {
        "at": "12:00",
        "what": "in",
        "session": "a@b/c",
        "empty": [],
        "hooks": {"x": 1},
        "xml": "<a\n/>",
    }
    assert line_of(record) == '12:00  in  session=a@b/c hooks={"x": 1}\n    <a\\n/>'
