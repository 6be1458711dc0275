"""The stream header: everything of an XML stream up to its first child (RFC 6120 4.2, 4.7, 4.8, 11)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from xml.parsers.expat import ExpatError, ParserCreate

from xmppd import ns
from xmppd.errors import StreamError
from xmppd.xml.build import escape_attribute
from xmppd.xml.engine import ROOT_NAME, well_formedness
from xmppd.xml.framing import NAME, SPACE, START, check_attributes
from xmppd.xml.limits import Limits
from xmppd.xml.stanza import SEPARATOR

_QUOTED = rb"%b*+=%b*+(?:\"(%%b)\"|'(%%b)')" % (SPACE, SPACE)
_DECLARATION = re.compile(
    rb"<\?xml%b++version%b(?:%b++encoding%b)?(?:%b++standalone%b)?%b*+\?>"
    % (
        SPACE,
        _QUOTED % (rb"[\w.:-]++", rb"[\w.:-]++"),
        SPACE,
        _QUOTED % (rb"[A-Za-z][\w.-]*+", rb"[A-Za-z][\w.-]*+"),
        SPACE,
        _QUOTED % (rb"yes|no", rb"yes|no"),
        SPACE,
    )
)
_WHITE = re.compile(rb"%b*+" % SPACE)
_TAG = re.compile(START)
_BEGUN_TAG = re.compile(rb"<(?:%b(?:[^<>\"']++|\"[^\"<]*+\"|'[^'<]*+')*(?:\"[^\"<]*+|'[^'<]*+)?)?\Z" % NAME)
_BOM = b"\xef\xbb\xbf"

REMEMBERED_BYTES = 512
"""The longest header whose meaning is remembered."""
_USUAL_NAME = b"<stream:stream"


@dataclass(frozen=True, slots=True)
class StreamOpen:
    """A stream header: `attrs` as in `Stanza.attrs`, `ns` the content namespace (RFC 6120 4.7, 4.8.2)."""

    attrs: dict[str, str]
    ns: str = ns.CLIENT


@dataclass(frozen=True, slots=True)
class Context:
    """What of the header its children need.

    `name` is the header's name as written, `opening` a start tag for the parser with the header's
    declarations. `is_usual` says that the default namespace is `jabber:client`, `longest` is the size of the
    longest namespace that has a prefix, in bytes.
    """

    name: bytes
    opening: bytes
    is_usual: bool
    longest: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header and the index behind it; `is_empty`: the stream was closed by the same tag."""

    event: StreamOpen
    context: Context
    end: int
    is_empty: bool


def read_header(data: bytes, start: int, limits: Limits) -> Header | None:
    """The header at `start` of `data`, None when it is not complete; StreamError for all that is not one."""
    if start == 0:
        begun = data.find(_USUAL_NAME, 0, REMEMBERED_BYTES)
        end = data.find(b">", begun, REMEMBERED_BYTES) + 1 if begun >= 0 else 0
        if end and (header := _read_remembered(data[:end], limits)) is not None:
            return header
    return _read(data, start, limits)


def _read(data: bytes, start: int, limits: Limits) -> Header | None:
    at = _skip_declaration(data, start)
    if at is not None:
        tag = _begun_header(data, at)
        if tag is not None and tag.end() - start <= limits.header_bytes:
            return _parse(tag, limits)
    if len(data) - start > limits.header_bytes:
        raise StreamError("policy-violation", "stream header too big")
    return None


@lru_cache(maxsize=256)
def _read_remembered(data: bytes, limits: Limits) -> Header | None:
    """Nearly every client sends the same header as many others, and most send it twice. There may be more
    behind it: a login by XEP-0388 needs no answer first.
    """
    return _read(data, 0, limits)


def _skip_declaration(data: bytes, start: int) -> int | None:
    """Index behind byte order mark, XML declaration and white space; None when they are not complete."""
    if data[start] in b"\x00\xfe\xff" or data[start + 1 : start + 2] == b"\x00":
        raise StreamError("unsupported-encoding", "UTF-8 only")
    at = start
    if data[at] == _BOM[0]:
        if len(data) - at < len(_BOM) and _BOM.startswith(data[at:]):
            return None
        at += len(_BOM) if data.startswith(_BOM, at) else 0
    declaration = _DECLARATION.match(data, at)
    if declaration:
        _check_declaration(declaration)
        at = declaration.end()
    elif data.startswith(b"<?xml", at) and data[at + 5 : at + 6] in (b"", b" ", b"\t", b"\r", b"\n"):
        if data.find(b"?>", at) < 0:
            return None
        raise StreamError("not-well-formed")
    elif len(data) - at < len(b"<?xml") and b"<?xml".startswith(data[at:]):
        return None
    white = _WHITE.match(data, at)
    return white.end() if white else at


def _check_declaration(declaration: re.Match[bytes]) -> None:
    """RFC 6120 11.6: XML 1.0 in UTF-8."""
    version = declaration[1] or declaration[2]
    encoding = declaration[3] or declaration[4] or b"utf-8"
    if version != b"1.0":
        raise StreamError("not-well-formed", "XML 1.0 only")
    if encoding.lower() != b"utf-8":
        raise StreamError("unsupported-encoding", "UTF-8 only")


def _begun_header(data: bytes, at: int) -> re.Match[bytes] | None:
    """The start tag at `at`, None when it is not complete."""
    tag = _TAG.match(data, at)
    if tag is None and at < len(data):
        if data[at : at + 2] in (b"<!", b"<?"):
            raise StreamError("restricted-xml", "no comments, processing instructions or DTDs")
        if not _BEGUN_TAG.match(data, at):
            raise StreamError("not-well-formed")
    return tag


def _parse(tag: re.Match[bytes], limits: Limits) -> Header:
    check_attributes(tag[2], limits)
    event, context = _meaning(tag[0], tag[1])
    return Header(event, context, tag.end(), bool(tag[3]))


def _meaning(tag: bytes, written: bytes) -> tuple[StreamOpen, Context]:
    declared: dict[str, str] = {}
    found: list[tuple[str, dict[str, str]]] = []
    parser = ParserCreate("utf-8", SEPARATOR)
    parser.StartNamespaceDeclHandler = lambda prefix, uri: declared.__setitem__(prefix or "", uri or "")
    parser.StartElementHandler = lambda name, attrs: found.append((name, attrs))
    try:
        parser.Parse(tag, False)
    except ExpatError as error:
        raise well_formedness(error) from None
    name, attrs = found[0]
    _check_namespaces(name, declared)
    return StreamOpen(attrs), _context(written, declared)


def _check_namespaces(name: str, declared: dict[str, str]) -> None:
    """RFC 6120 4.8.1, 4.8.2; a root of the right namespace that is no `stream` is refused by 4.9.3.1."""
    uri, _, local = name.rpartition(SEPARATOR)
    if uri != ns.STREAM:
        raise StreamError("invalid-namespace", f"the stream namespace is {ns.STREAM}")
    if local != "stream":
        raise StreamError("bad-format")
    default = declared.get("", "")
    if default != ns.CLIENT and (default not in ("", ns.STREAM) or ns.CLIENT not in declared.values()):
        raise StreamError("invalid-namespace", f"the content namespace is {ns.CLIENT}")


_USUAL_DECLARATIONS = {"": ns.CLIENT, "stream": ns.STREAM}


def _opening(declared: dict[str, str]) -> bytes:
    attrs = (
        f" xmlns{':' if prefix else ''}{prefix}='{escape_attribute(uri)}'" for prefix, uri in declared.items()
    )
    return f"<{ROOT_NAME}{''.join(attrs)}>".encode()


USUAL = Context(b"stream:stream", _opening(_USUAL_DECLARATIONS), is_usual=True, longest=len(ns.STREAM))
"""Shared by all streams whose header declares what nearly every header declares."""


def _context(name: bytes, declared: dict[str, str]) -> Context:
    if name == USUAL.name and declared == _USUAL_DECLARATIONS:
        return USUAL
    longest = max((len(uri.encode()) for prefix, uri in declared.items() if prefix), default=0)
    return Context(name, _opening(declared), declared.get("") == ns.CLIENT, longest)
