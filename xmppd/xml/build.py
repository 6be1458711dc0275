"""Elements to bytes, and the few pieces of XML that the server says so often that they have a function each.

Everything written here is single-quoted, needs no declaration from outside but the stream's default namespace
`jabber:client`, and is UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.errors import SaslError, StanzaError, StreamError
from xmppd.xml.stanza import LANG, Stanza, clark, unclark

_PLAIN = bytes(byte if byte >= 0x20 and byte not in b"&<>'" else 0x80 for byte in range(256))
"""Changes each byte that has to be escaped, or may not be there; a look by it costs half of `isprintable`."""
_LEGAL = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*+")
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT = "\ufffd"


def escape_text(text: str) -> str:
    """Character data, escaped; a character that XML 1.0 has no place for becomes U+FFFD."""
    if text.isascii() and (data := text.encode()).translate(_PLAIN) == data:
        return text
    if text.isprintable():  # then it is legal, and has no white space but blanks
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _legal(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def escape_attribute(value: str) -> str:
    """An attribute's value, escaped like text, for single quotes; white space survives normalisation."""
    if value.isascii() and (data := value.encode()).translate(_PLAIN) == data:
        return value
    text = escape_text(value).replace("'", "&apos;")
    return text if text.isprintable() else text.replace("\n", "&#10;").replace("\t", "&#9;")


def escape_bytes(data: bytes) -> bytes:
    """Character data in UTF-8 that is legal, as it comes from a CDATA section."""
    return data.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")


def _legal(text: str) -> str:
    return text if _LEGAL.fullmatch(text) else _ILLEGAL.sub(_REPLACEMENT, text)


def is_legal(text: str) -> bool:
    """Whether XML 1.0 has a place for all of its characters."""
    return _LEGAL.fullmatch(text) is not None


def element(name: str, attrs: Mapping[str, str] | None = None, *content: Element | str | None) -> Element:
    """An element by its Clark name; `content` are children and text (None is left out)."""
    tree = Element(name, dict(attrs) if attrs else {})
    last: Element | None = None
    for part in content:
        if isinstance(part, str):
            if last is None:
                tree.text = (tree.text or "") + part
            else:
                last.tail = (last.tail or "") + part
        elif part is not None:
            tree.append(part)
            last = part
    return tree


def _split(name: str) -> tuple[str, str]:
    uri, _, local = name.rpartition("}")
    return uri[1:], local


def serialize(tree: Element, default: str = ns.CLIENT) -> bytes:
    """The element's bytes as they may stand where `default` is the default namespace."""
    out: list[str] = []
    _write(tree, default, out.append)
    return "".join(out).encode()


def _write(tree: Element, default: str, emit: Callable[[str], None]) -> None:
    uri, name = _split(tree.tag)
    if uri == ns.XML:  # bound to its prefix for ever, and to nothing else
        uri, name = default, f"xml:{name}"
    emit(f"<{name}")
    if uri != default:
        emit(f" xmlns='{escape_attribute(uri)}'")
    for index, (key, value) in enumerate(tree.items()):
        emit(f" {key}='{escape_attribute(value)}'" if key[0] != "{" else _attribute(key, value, index))
    if tree.text is None and len(tree) == 0:
        emit("/>")
        return
    emit(">")
    if tree.text:
        emit(escape_text(tree.text))
    for child in tree:
        _write(child, uri, emit)
        if child.tail:
            emit(escape_text(child.tail))
    emit(f"</{name}>")


def _attribute(key: str, value: str, index: int) -> str:
    """One attribute; a namespaced one (Clark name) brings its own prefix, numbered by `index`."""
    uri, name = _split(key)
    if not uri:
        return f" {name}='{escape_attribute(value)}'"
    if uri == ns.XML:
        return f" xml:{name}='{escape_attribute(value)}'"
    return f" xmlns:n{index}='{escape_attribute(uri)}' n{index}:{name}='{escape_attribute(value)}'"


def start_tag(kind: str, attrs: Mapping[str, str]) -> bytes:
    """The start tag of a stanza without its last bracket, from attributes keyed as in `Stanza.attrs`."""
    parts = [f"<{kind}"]
    for index, (key, value) in enumerate(attrs.items()):
        parts.append(_attribute(clark(key), value, index))
    return "".join(parts).encode()


def restamp(stanza: Stanza, **changes: str | None) -> bytes:
    """The stanza's bytes with some attributes of its start tag replaced (None: removed); `from_` means
    `from`.
    """
    attrs = dict(stanza.attrs)
    for key, value in changes.items():
        name = {"from_": "from", "lang": LANG}.get(key, key)
        if value is None:
            attrs.pop(name, None)
        else:
            attrs[name] = value
    return start_tag(stanza.kind, attrs) + stanza.raw[stanza.tail :]


def iq_result(request: Stanza, to: str, payload: Element | bytes | None = None) -> bytes:
    """The result of an iq, sent by whomever it was addressed to (RFC 6120 8.2.3)."""
    head = _reply_head("iq", "result", request, to)
    if payload is None:
        return head + b"/>"
    return head + b">" + (payload if isinstance(payload, bytes) else serialize(payload)) + b"</iq>"


def bound(jid: str) -> bytes:
    """What tells a client its full JID (RFC 6120 7.6.1)."""
    return f"<bind xmlns='{ns.BIND}'><jid>{escape_text(jid)}</jid></bind>".encode()


def error_reply(request: Stanza, to: str, error: StanzaError) -> bytes:
    """The stanza error that answers `request` (RFC 6120 8.3); the caller sees to it that no error answers an
    error.
    """
    return (
        _reply_head(request.kind, "error", request, to)
        + b">"
        + stanza_error(error)
        + f"</{request.kind}>".encode()
    )


def stanza_error(error: StanzaError) -> bytes:
    """The `<error/>` child (RFC 6120 8.3.2)."""
    text = (
        f"<text xmlns='{ns.STANZA_ERRORS}' xml:lang='en'>{escape_text(error.text)}</text>"
        if error.text
        else ""
    )
    name, content = error.condition, escape_text(error.content)
    end = f">{content}</{name}>" if content else "/>"
    head = f"<error type='{error.type}'><{name} xmlns='{ns.STANZA_ERRORS}'{end}{text}".encode()
    detail = element(error.detail) if error.detail and isinstance(error.detail, str) else error.detail
    return head + (b"" if isinstance(detail, str) else serialize(detail)) + b"</error>"


def _reply_head(kind: str, type: str, request: Stanza, to: str) -> bytes:
    head = f"<{kind} type='{type}'"
    if request.id is not None:
        head += f" id='{escape_attribute(request.id)}'"
    if request.to:
        head += f" from='{escape_attribute(request.to)}'"
    if to:
        head += f" to='{escape_attribute(to)}'"
    return head.encode()


def stream_error(error: StreamError) -> bytes:
    """`<stream:error/>` (RFC 6120 4.9.2)."""
    text = (
        f"<text xmlns='{ns.STREAM_ERRORS}' xml:lang='en'>{escape_text(error.text)}</text>"
        if error.text
        else ""
    )
    head = f"<{error.condition} xmlns='{ns.STREAM_ERRORS}'"
    condition = f"{head}>{escape_text(error.content)}</{error.condition}>" if error.content else f"{head}/>"
    return f"<stream:error>{condition}{text}".encode() + error.extra + b"</stream:error>"


def sasl(name: str, payload: str) -> bytes:
    """`<challenge/>` or `<success/>` with its base64 text (RFC 6120 6.4.3, 6.4.6)."""
    return f"<{name} xmlns='{ns.SASL}'>{payload}</{name}>".encode()


def sasl_failure(error: SaslError) -> bytes:
    """`<failure/>` of SASL (RFC 6120 6.4.5)."""
    text = f"<text xml:lang='en'>{escape_text(error.text)}</text>" if error.text else ""
    return f"<failure xmlns='{ns.SASL}'><{error.condition}/>{text}</failure>".encode()


def sasl2_challenge(payload: str) -> bytes:
    """`<challenge/>` of XEP-0388 with its base64 text."""
    return f"<challenge xmlns='{ns.SASL2}'>{payload}</challenge>".encode()


def sasl2_success(payload: str | None, identifier: str, inline: bytes) -> bytes:
    """`<success/>` of XEP-0388: with the mechanism's last word as base64 text (None: it has none), who the
    client is, and the answers to what it asked for inline.
    """
    data = "" if payload is None else f"<additional-data>{payload}</additional-data>"
    who = f"<authorization-identifier>{escape_text(identifier)}</authorization-identifier>"
    return f"<success xmlns='{ns.SASL2}'>{data}{who}".encode() + inline + b"</success>"


def sasl2_failure(error: SaslError) -> bytes:
    """`<failure/>` of XEP-0388."""
    text = f"<text>{escape_text(error.text)}</text>" if error.text else ""
    return f"<failure xmlns='{ns.SASL2}'><{error.condition} xmlns='{ns.SASL}'/>{text}</failure>".encode()


def bound2(content: bytes) -> bytes:
    """`<bound/>` of XEP-0386 with the answers to what was asked for with it."""
    return f"<bound xmlns='{ns.BIND2}'>".encode() + content + b"</bound>"


def bind2_failure(error: StanzaError) -> bytes:
    """What stands for `<bound/>` where no resource could be bound: it holds a stanza error."""
    inner = stanza_error(error).replace(b"<error ", f"<error xmlns='{ns.CLIENT}' ".encode(), 1)
    return f"<failed xmlns='{ns.BIND2}'>".encode() + inner + b"</failed>"


def delay(sender: str, stamp: str) -> bytes:
    """`<delay/>` (XEP-0203) by `sender`; `stamp` is a moment in the form of XEP-0082."""
    return f"<delay xmlns='{ns.DELAY}' from='{escape_attribute(sender)}' stamp='{stamp}'/>".encode()


def insert_child(raw: bytes, kind: str, child: bytes) -> bytes:
    """A stanza's bytes (or the end of them, from some attribute on) with one more child at the end."""
    if raw.endswith(b"/>"):
        return b"%b>%b</%b>" % (raw[:-2], child, kind.encode())
    return b"".join((raw[: raw.rindex(b"</")], child, b"</", kind.encode(), b">"))


def stanza_of(tree: Element) -> Stanza:
    """A stanza made from a tree whose root is in `jabber:client`."""
    kind = _split(tree.tag)[1]
    attrs = {unclark(key): value for key, value in tree.items()}
    payload = tree[0].tag if len(tree) else ""
    return Stanza(kind, attrs, serialize(tree), len(start_tag(kind, attrs)), payload)


TLS_PROCEED = f"<proceed xmlns='{ns.TLS}'/>".encode()
TLS_FAILURE = f"<failure xmlns='{ns.TLS}'/>".encode()
"""What answers `<starttls/>` (RFC 6120 5.4.2)."""
