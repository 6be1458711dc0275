"""The framing of TCP: one long document in each direction (RFC 6120 4.2)."""

from __future__ import annotations

import os
from functools import lru_cache

from xmppd import ns
from xmppd.xml.build import escape_attribute
from xmppd.xml.scan import Scanner

END = b"</stream:stream>"
BEGINNING = (
    f"<?xml version='1.0'?><stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' id='".encode()
)


class DocumentFraming(Scanner):
    """A scanner that can speak, too."""

    __slots__ = ()

    def header(self, domain: str, to: str, lang: str) -> bytes:
        """See `Framing.header`."""
        return BEGINNING + os.urandom(16).hex().encode() + _behind_id(domain, to, lang)

    def end(self) -> bytes:
        """See `Framing.end`."""
        return END


@lru_cache(maxsize=64)
def _behind_id(domain: str, to: str, lang: str) -> bytes:
    attrs = "'"
    if domain:
        attrs += f" from='{escape_attribute(domain)}'"
    if to:
        attrs += f" to='{escape_attribute(to)}'"
    return f"{attrs} version='1.0' xml:lang='{escape_attribute(lang)}'>".encode()
