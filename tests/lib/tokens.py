"""Whole tokens for expat, which since 2.6, and in updated distributions, defers what came in parts.

What has begun is tried again only once twice as much is there: an element would be reported late.
"""

from __future__ import annotations

import re

_WHOLE = re.compile(
    rb"(?:[^<]++(?=<)|<!\[CDATA\[(?s:.*?)\]\]>|<(?![!?])(?:[^<>\"']++|\"[^\"<]*+\"|'[^'<]*+')*>)*"
)
_BEGUN_TAG = re.compile(rb"<(?:(?![!?])(?:[^<>\"']++|\"[^\"<]*+\"|'[^'<]*+')*(?:\"[^\"<]*+|'[^'<]*+)?)?\Z")
_CDATA = b"<![CDATA["
_BEGUN_TEXT = re.compile(rb"(?:&#?\w*+|\]\]?|\r|[\xc2-\xf4][\x80-\xbf]{0,2})\Z")


class Tokens:
    """Holds back the last token of a stream until it is whole."""

    def __init__(self) -> None:
        self.held = b""

    def whole(self, data: bytes) -> bytes:
        """What the parser may be given, now that `data` has come; bytes that can become no token, too."""
        data = self.held + data
        end = self._end(data)
        self.held = data[end:]
        return data[:end]

    def _end(self, data: bytes) -> int:
        whole = _WHOLE.match(data)
        end = whole.end() if whole else 0
        if data.find(b"<", end) < 0:
            text = _BEGUN_TEXT.search(data, end)
            return text.start() if text else len(data)
        rest = data[end : end + len(_CDATA)]
        begun = _BEGUN_TAG.match(data, end) or rest == _CDATA or _CDATA.startswith(data[end:])
        return end if begun else len(data)
