"""Text that went through a wrong encoding: found, counted, and mended where bytes are left to mend."""

from __future__ import annotations

import re
from typing import Final

NOT_UTF8: Final = "not-utf8"
MOJIBAKE: Final = "mojibake"
QUESTION_MARKS: Final = "question-marks"

_TAIL = "\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122"
"""What bytes 0x80 to 0xBF of UTF-8 become when they are read as Latin-1 or Windows-1252."""

_PAIR = f"[\u00c2-\u00f4][{_TAIL}]"
ODD: Final = re.compile(f"[\u00c2-\u00f4\udc80-\udcff](?:(?<=[\udc80-\udcff])|(?=[{_TAIL}]))")
"""What needs a closer look. (A set of letters first is what `re` is quick to look for.)"""

LOST: Final = re.compile(r"\?(?:\?\?|(?<![^\s']\?)\?*(?![^\s']))")
"""Question marks that stand alone, or many of them: a dump of MySQL has them for what it cannot convert."""

_STRAY = re.compile("[\udc80-\udcff]")
_CUT = re.compile("[\udcc2-\udcf4][\udc80-\udcbf]{0,2}$")
_PAIRS = re.compile(_PAIR)


def garbled(value: str, *, questions: bool = False) -> str:
    """What is wrong with a text, as a kind of loss; "" for nothing."""
    if _STRAY.search(value):
        return NOT_UTF8
    if _PAIRS.search(value) and _once_more(value) is not None:
        return MOJIBAKE
    return QUESTION_MARKS if questions and LOST.search(value) else ""


def _once_more(value: str) -> str | None:
    """What a text of UTF-8 read as Latin-1 or Windows-1252 was; None where it is no such text."""
    data = bytearray()
    for letter in value:
        if ord(letter) < 256:
            data.append(ord(letter))
            continue
        try:
            data += letter.encode("cp1252")
        except UnicodeEncodeError:
            return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def mended(value: str) -> str:
    """A text with bytes that are not UTF-8 (as lone surrogates): a letter that is cut at the end goes, text
    without any letter of UTF-8 is Windows-1252, and what is left is U+FFFD.
    """
    if not _STRAY.search(value):
        return value
    cut = _CUT.sub("", value)
    if not _STRAY.search(cut):
        return cut
    data = value.encode("utf-8", "surrogateescape")
    has_letters = any(letter > "\x7f" and not "\udc80" <= letter <= "\udcff" for letter in value)
    return data.decode("utf-8", "replace") if has_letters else data.decode("cp1252", "replace")
