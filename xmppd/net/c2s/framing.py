"""The framing of TCP: one long document in each direction (RFC 6120 4.2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
        return BEGINNING + next(_ids) + _behind_id(domain, to, lang)

    def end(self) -> bytes:
        """See `Framing.end`."""
        return END


def _stream_ids() -> Iterator[bytes]:
    """Ids of streams, each 128 random bits (RFC 6120 4.7.3): the kernel is asked for many at once."""
    while True:
        many = os.urandom(16 * 256).hex().encode()
        for at in range(0, len(many), 32):
            yield many[at : at + 32]


_ids = _stream_ids()


@lru_cache(maxsize=64)
def _behind_id(domain: str, to: str, lang: str) -> bytes:
    attrs = "'"
    if domain:
        attrs += f" from='{escape_attribute(domain)}'"
    if to:
        attrs += f" to='{escape_attribute(to)}'"
    return f"{attrs} version='1.0' xml:lang='{escape_attribute(lang)}'>".encode()
