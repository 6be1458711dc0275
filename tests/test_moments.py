"""Moments as they are written."""

import pytest

from xmppd.moments import utc_stamp


@pytest.mark.parametrize(
    ("at", "seconds", "milliseconds"),
    [
        (0.0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.9996, "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.999Z"),
        (-1.0, "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.000Z"),
        (253_402_300_799.0, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_moment_as_xep_0082_has_it(at: float, seconds: str, milliseconds: str) -> None:
    assert (utc_stamp(at), utc_stamp(at, to="milliseconds")) == (seconds, milliseconds)


@pytest.mark.parametrize("at", [1e12, 1e18, 1e300])
def test_a_moment_that_is_none(at: float) -> None:
    with pytest.raises(ValueError, match=r"year|no date"):
        utc_stamp(at)
