"""What the server says at the opening of a stream: its header and its features (RFC 6120 4.3.2, 4.7)."""

from __future__ import annotations

import re
import secrets
from functools import lru_cache

from xmppd import ns
from xmppd.errors import JidError, StreamError
from xmppd.jid import Jid
from xmppd.xml.build import escape_attribute, escape_text
from xmppd.xml.scan import StreamOpen
from xmppd.xml.stanza import LANG

VERSION = re.compile(r"\d{1,6}\.\d{1,6}\Z", re.ASCII)
CLOSE = b"</stream:stream>"


def header(domain: str, to: str, lang: str) -> bytes:
    """The server's stream header with a fresh id of 128 random bits (RFC 6120 4.7.3)."""
    attrs = f"id='{secrets.token_hex(16)}'"
    if domain:
        attrs += f" from='{escape_attribute(domain)}'"
    if to:
        attrs += f" to='{escape_attribute(to)}'"
    return (
        f"<?xml version='1.0'?><stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' {attrs} "
        f"version='1.0' xml:lang='{escape_attribute(lang)}'>"
    ).encode()


def domain_of(opening: StreamOpen, domains: frozenset[str]) -> str:
    """The domain a client wants; StreamError for an address or version we cannot serve (RFC 6120
    4.7, 4.9.3).
    """
    version = opening.attrs.get("version", "0.9")
    if not VERSION.match(version) or int(version.partition(".")[0]) < 1:
        raise StreamError("unsupported-version")
    to = opening.attrs.get("to", "")
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


@lru_cache(maxsize=64)
def login_features(
    mechanisms: tuple[str, ...],
    channel_bindings: tuple[str, ...],
    *,
    starttls: bool,
    required: bool,
    extra: bytes = b"",
) -> bytes:
    """The features before authentication; without mechanisms only TLS is on offer (RFC 6120 5.3.1, 6.3.3,
    XEP-0440).
    """
    parts = ["<stream:features>"]
    if starttls:
        parts.append(f"<starttls xmlns='{ns.TLS}'>{'<required/>' if required else ''}</starttls>")
    if mechanisms:
        listed = "".join(f"<mechanism>{escape_text(name)}</mechanism>" for name in mechanisms)
        parts.append(f"<mechanisms xmlns='{ns.SASL}'>{listed}</mechanisms>")
        if channel_bindings:
            types = "".join(
                f"<channel-binding type='{escape_attribute(name)}'/>" for name in channel_bindings
            )
            parts.append(
                f"<sasl-channel-binding xmlns='{ns.SASL_CHANNEL_BINDING}'>{types}</sasl-channel-binding>"
            )
        parts.append(extra.decode())
    parts.append("</stream:features>")
    return "".join(parts).encode()


@lru_cache(maxsize=8)
def session_features(extra: bytes = b"") -> bytes:
    """The features after authentication (RFC 6120 7.4, RFC 6121 2.6.1 and 3.4.3, RFC 3921 3 as optional)."""
    fixed = (
        f"<stream:features><bind xmlns='{ns.BIND}'/><session xmlns='{ns.SESSION}'><optional/></session>"
        f"<ver xmlns='{ns.ROSTER_VERSIONING}'/><sub xmlns='{ns.PREAPPROVAL}'/>"
    )
    return fixed.encode() + extra + b"</stream:features>"
