"""Words that are looked for in messages (XEP-0431), and whether they are in one.

Words of a message stand by themselves: what is not a letter, a digit or an underscore parts them. Where
scripts part no words (Han, Kana, Thai, Lao, Burmese, Khmer) each character is one. Letters are compared
without case, marks and compatibility forms: "Strasse" is "straße", "cafe" is "Café" (Unicode's NFKD, its
combining marks left out, and its full case folding).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from xmppd import ns
from xmppd.plugin import Stanza, StanzaError

TEXT: Final = 1000
"""Characters of what is looked for, at most."""
TERMS: Final = 32
"""Words of it, at most."""
LOOKED_AT: Final = 10_000
"""Characters of one text of a message that are looked at."""
SMALL: Final = 16_384
"""Bytes of a message up to which it is cheaper to look at all of it before it is parsed."""
TEXTS: Final = (f"{{{ns.CLIENT}}}subject", f"{{{ns.CLIENT}}}body")

_PHRASES: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')
_ALONE: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters of scripts that part no words."""
_WORDS: Final = re.compile(rf"(?![{_ALONE}])\w(?:(?![{_ALONE}])\w)*|(?=[{_ALONE}])\w")
_ASCII_WORDS: Final = re.compile(r"\w+", re.ASCII)
_MARKS: Final = re.compile(
    "[{}]+".format("".join(chr(code) for code in range(0x300, 0x3100) if unicodedata.combining(chr(code))))
)
"""Combining marks of all scripts that have any on the keyboard."""


class Words:
    """What is looked for. All words have to be in one text of a message; those between quotation marks, or
    written without a space between them, next to each other and in this order.
    """

    def __init__(self, text: str) -> None:
        """StanzaError bad-request when there is no word in it, policy-violation when it is too much."""
        if len(text) > TEXT:
            raise StanzaError("policy-violation", f"Look for {TEXT} characters at most.")
        phrases = [list(_words(quoted or plain)) for quoted, plain in _PHRASES.findall(text)]
        self._words = frozenset(word for phrase in phrases for word in phrase)
        if not self._words:
            raise StanzaError("bad-request", "There is no word in what is to be looked for.")
        if sum(map(len, phrases)) > TERMS:
            raise StanzaError("policy-violation", f"Look for {TERMS} words at most.")
        self._terms = tuple(dict.fromkeys(f" {' '.join(phrase)} " for phrase in phrases if phrase))

    def are_in(self, raw: bytes) -> bool:
        """Whether a message has them."""
        if not self._may_be_in(raw):
            return False
        message = Stanza("message", {}, raw).xml
        texts = (child.text or "" for child in message if child.tag in TEXTS)
        return any(self._are_in(text[:LOOKED_AT]) for text in texts)

    def _may_be_in(self, raw: bytes) -> bool:
        """Whether it is worth parsing; a reference to a character or a CDATA section may hide a word."""
        if len(raw) > SMALL or b"&#" in raw or b"<!" in raw:
            return True
        text = _folded(raw.decode())
        return all(word in text for word in self._words)

    def _are_in(self, text: str) -> bool:
        line = f" {' '.join(_words(text))} "
        return all(term in line for term in self._terms)


def _words(text: str) -> Iterator[str]:
    folded = _folded(text)
    words = _ASCII_WORDS if folded.isascii() else _WORDS
    return (match[0] for match in words.finditer(folded))


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    return _MARKS.sub("", unicodedata.normalize("NFKD", text)).casefold()
