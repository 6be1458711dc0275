"""Moments as other servers write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd.migrate.stamps import moment, stamp


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-28T08:31:40.605586Z", 1795854700.605586),
        ("2026-11-28T08:31:40.6055869Z", 1795854700.605586),
        ("2026-11-28T09:31:40+01:00", 1795854700),
        ("2026-11-28T03:01:40-0530", 1795854700),
        ("20020910T23:08:25", 1031699305),
        (" 2002-09-10T23:08:25 ", 1031699305),
        ("2016-12-31T23:59:60Z", 1483228800),
        ("1469-07-21T00:32:29Z", -15792622051),
        ("Thu Jan 21 14:17:35 CET 2016", 1453382255),
        ("Thu Jan 21 14:17:35 UTC 2016", 1453385855),
        ("Thu Jul 7 14:17:35 PDT 2016", 1467926255),
        ("Thu Jan 21 14:17:35 GMT+01:00 2016", 1453382255),
        ("Thu Jan 21 14:17:35 2016", 1453385855),
    ],
)
def test_forms(text: str, at: float) -> None:
    assert moment(text) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-02-03T25:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-02-03",
        "Thu Foo 21 14:17:35 CET 2016",
        "Thu Jan 21 14:17:35 XYZ 2016",
        "Thu Jan 41 14:17:35 CET 2016",
        "٢٠٢٦-02-03T00:00:00Z",
    ],
)
def test_what_is_no_moment(text: str) -> None:
    assert moment(text) is None


@given(st.integers(-60000000000_000_000, 200000000000_999_999))
def test_what_is_written_is_read(micros: int) -> None:
    at = micros / 1_000_000
    found = moment(stamp(at))
    assert found is not None
    assert round(found * 1_000_000) == round(at * 1_000_000)


@pytest.mark.parametrize("at", [float("inf"), float("nan"), 1e12, -1e12, 1e300])
def test_what_no_calendar_has(at: float) -> None:
    with pytest.raises(ValueError, match="no date"):
        stamp(at)
