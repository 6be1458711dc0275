"""Moments as servers write them: XEP-0082, XEP-0091, and as Java does in old exports of Openfire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

_PROFILE: Final = re.compile(
    r"\s*(\d{4})-?(\d\d)-?(\d\d)T(\d\d):?(\d\d):?(\d\d)(?:[.,](\d+))?\s*(Z|[+-]\d\d:?\d\d)?\s*",
    re.ASCII | re.IGNORECASE,
)
_JAVA: Final = re.compile(
    r"\s*[A-Za-z]{3} ([A-Za-z]{3}) (\d\d?) (\d\d):(\d\d):(\d\d) ([A-Za-z]+)?([+-]\d\d:?\d\d)? ?(\d{4})\s*",
    re.ASCII,
)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ZONES: Final[Mapping[str, int]] = {
    "UTC": 0,
    "GMT": 0,
    "Z": 0,
    "WET": 0,
    "WEST": 60,
    "BST": 60,
    "CET": 60,
    "CEST": 120,
    "MEZ": 60,
    "MESZ": 120,
    "EET": 120,
    "EEST": 180,
    "MSK": 180,
    "EST": -300,
    "EDT": -240,
    "CST": -360,
    "CDT": -300,
    "MST": -420,
    "MDT": -360,
    "PST": -480,
    "PDT": -420,
    "BRT": -180,
    "JST": 540,
    "KST": 540,
    "HKT": 480,
}
"""Names of zones as Java writes them -> minutes east of Greenwich."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str) -> float | None:
    """Seconds since the epoch of a stamp in any of these forms, in UTC where it names no zone; None where it
    is none of them.
    """
    match = _PROFILE.fullmatch(text)
    if match is not None:
        year, month, day, hour, minute, second, fraction, zone = match.groups()
        micros = int(((fraction or "") + "000000")[:6])
        return _seconds((year, month, day, hour, minute, second), micros, _offset(zone))
    match = _JAVA.fullmatch(text)
    if match is None or match[1].lower() not in _MONTHS or (match[6] or "UTC").upper() not in _ZONES:
        return None
    month = str(_MONTHS.index(match[1].lower()) + 1)
    offset = _ZONES[(match[6] or "UTC").upper()] + _offset(match[7])
    return _seconds((match[8], month, match[2], match[3], match[4], match[5]), 0, offset)


def stamp(at: float) -> str:
    """A moment in UTC in the form of XEP-0082, to the microsecond; ValueError before the year 1 and after
    9999.
    """
    try:
        found = _EPOCH + timedelta(microseconds=round(at * 1_000_000))
    except (OverflowError, ValueError) as error:
        raise ValueError(f"no date: {error}") from None
    fraction = f".{found.microsecond:06}" if found.microsecond else ""
    return f"{found.year:04}-{found:%m-%dT%H:%M:%S}{fraction}Z"


def _offset(zone: str | None) -> int:
    """Minutes east of Greenwich of `+hh:mm`, 0 for none."""
    if not zone or zone in "zZ":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return -minutes if zone[0] == "-" else minutes


def _seconds(parts: tuple[str, ...], micros: int, offset: int) -> float | None:
    year, month, day, hour, minute, second = map(int, parts)
    leap = second == 60
    try:
        found = datetime(year, month, day, hour, minute, 59 if leap else second, micros, UTC)
        return (found - _EPOCH + timedelta(seconds=int(leap), minutes=-offset)) / timedelta(seconds=1)
    except (OverflowError, ValueError):
        return None
