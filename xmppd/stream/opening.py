"""What a client's stream header says, and whether it can be served (RFC 6120 4.7)."""

from __future__ import annotations

import re
from functools import lru_cache

from xmppd.errors import JidError, StreamError
from xmppd.jid import Jid
from xmppd.xml.scan import StreamOpen
from xmppd.xml.stanza import LANG

VERSION = re.compile(r"\d{1,6}\.\d{1,6}\Z", re.ASCII)


def domain_of(opening: StreamOpen, domains: frozenset[str]) -> str:
    """The domain a client wants; StreamError for an address or version we cannot serve (RFC 6120
    4.7, 4.9.3).
    """
    return _domain(opening.attrs.get("version", "0.9"), opening.attrs.get("to", ""), domains)


@lru_cache(maxsize=256)
def _domain(version: str, to: str, domains: frozenset[str]) -> str:
    if not VERSION.match(version) or int(version.partition(".")[0]) < 1:
        raise StreamError("unsupported-version")
    if not to:
        raise StreamError("improper-addressing", "Name the domain you want in the attribute 'to'.")
    try:
        jid = Jid.parse(to)
    except JidError:
        raise StreamError("improper-addressing") from None
    if jid.full not in domains:
        raise StreamError("host-unknown")
    return jid.full


def sender_of(opening: StreamOpen) -> str:
    """The JID the client says it has, when it is one."""
    sender = opening.attrs.get("from", "")
    try:
        return Jid.parse(sender).full if sender else ""
    except JidError:
        return ""


def lang_of(opening: StreamOpen) -> str:
    """The stream's default language (RFC 6120 4.7.4), at most 35 characters of it."""
    lang = opening.attrs.get(LANG, "")
    return lang if len(lang) <= 35 else ""
