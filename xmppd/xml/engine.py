"""The strict, namespace-aware parses that every stanza has to pass, all by expat.

All streams of a process share two parsers, one that makes trees and one that does not: one per connection
costs more than ten kilobytes, one per element more than the parse. Expat never forgets a name it saw, so they
are replaced after a fixed number of bytes, and after every error.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser
from xml.parsers.expat import ExpatError, ParserCreate, XMLParserType, errors

from xmppd import ns
from xmppd.errors import StreamError
from xmppd.xml.build import escape_bytes, serialize
from xmppd.xml.framing import CDATA, CDATA_END
from xmppd.xml.limits import Limits
from xmppd.xml.stanza import SEPARATOR, Stanza, clark, parse_within, unclark

ROOT_NAME = "é"
"""The element around what is parsed. Nobody can close it: the name is not ASCII (see `Engine.stanza`)."""
ROOT = f"<{ROOT_NAME} xmlns='{ns.CLIENT}'>".encode()
ROOT_END = f"</{ROOT_NAME}>".encode()

PARSER_BYTES = 250_000
"""After so many bytes a shared parser is replaced, which bounds what it can remember."""

_KINDS = {f"{ns.CLIENT}{SEPARATOR}{kind}": kind for kind in ("message", "presence", "iq")}
_WITHOUT_PAYLOAD = frozenset(name for name, kind in _KINDS.items() if kind != "iq")
_CONDITIONS = {
    errors.codes[errors.XML_ERROR_UNBOUND_PREFIX]: "bad-namespace-prefix",
    errors.codes[
        errors.XML_ERROR_UNDEFINED_ENTITY
    ]: "restricted-xml",  # RFC 6120 11.1: none but the predefined
}


def well_formedness(error: ExpatError) -> StreamError:
    """The stream error that says what expat said."""
    return StreamError(_CONDITIONS.get(error.code, "not-well-formed"))


def _kind(name: str) -> str:
    """`{}message` for a message in no namespace: it is not to be taken for one of ours."""
    return _KINDS.get(name) or (clark(name) if SEPARATOR in name else "{}" + name)


class Trees:
    """The shared parser that makes trees."""

    __slots__ = ("_budget", "_parser", "_within")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Use a new parser."""
        builder = TreeBuilder()
        top = builder.start("", {})
        self._parser = XMLParser(target=builder)
        self._parser.feed(ROOT)
        self._within: Element = top[0]
        self._budget = PARSER_BYTES

    def tree(self, raw: bytes) -> Element:
        """The tree of `raw`, of which the same is promised as in `Engine.stanza`, or which was made of such a
        stanza; ParseError, ValueError.
        """
        within = self._within
        self._budget -= len(raw)
        try:
            self._parser.feed(raw)
            [tree] = within
        except BaseException:
            self.begin()
            raise
        if self._budget < 0:
            self.begin()
        within.clear()
        return tree


class Engine:
    """The shared parsers. Make one per process (it is not safe for threads) and give it to every scanner."""

    __slots__ = ("_attrs", "_budget", "_name", "_on_head", "_on_payload", "_parser", "_payload", "_trees")

    def __init__(self) -> None:
        self._name = ""
        self._attrs: dict[str, str] = {}
        self._payload = ""
        self._on_head = self._head
        self._on_payload = self._first_child
        self._trees = Trees()
        self._begin()

    def stanza(self, raw: bytes) -> Stanza | None:
        """The stanza in `raw`, or None when it is not well-formed or uses a prefix from outside.

        The caller vouches for one of two things. Either the last byte is the only `>`. Or `raw` starts with
        `<name` (in ASCII, without prefix), which occurs once in it, ends with `</name>`, and has no `<!` or
        `<?`. With that, a start tag found and no error mean that `raw` is exactly one element: every `<`
        began a tag, and the last tag closed the first. So the parser is left as it was.
        """
        parser = self._parser
        parser.StartElementHandler = self._on_head
        self._name = ""
        try:
            parser.Parse(raw, False)
        except ExpatError:
            self._begin()
            return None
        except BaseException:
            self._begin()
            raise
        name = self._name
        self._budget -= len(raw)
        if not name or self._budget < 0:
            self._begin()
            if not name:
                return None
        return Stanza(_KINDS.get(name) or _kind(name), self._attrs, raw, 0, self._payload, self._trees)

    def element(self, raw: bytes) -> Stanza | None:
        """The same with the same promise, for what is no stanza and of which the tree is wanted anyway: it is
        parsed once.
        """
        try:
            tree = self._trees.tree(raw)
        except (ParseError, ValueError):
            return None
        attrs = {unclark(name): value for name, value in tree.items()} if tree.attrib else {}
        kind = tree.tag if tree.tag[0] == "{" else "{}" + tree.tag
        return Stanza(kind, attrs, raw, payload=tree[0].tag if len(tree) else "", tree=tree)

    def release(self) -> None:
        """Give up the memory of the parsers and of the stanza before."""
        self._begin()
        self._trees.begin()
        self._name = self._payload = ""
        self._attrs = {}

    def _begin(self) -> None:
        """Use a new parser, because of an error or because expat never forgets a name."""
        self._parser: XMLParserType = ParserCreate("utf-8", SEPARATOR)
        self._parser.Parse(ROOT, False)
        self._budget = PARSER_BYTES

    def _head(self, name: str, attrs: dict[str, str]) -> None:
        self._name = name
        self._attrs = attrs
        self._payload = ""
        self._parser.StartElementHandler = None if name in _WITHOUT_PAYLOAD else self._on_payload

    def _first_child(self, name: str, attrs: dict[str, str]) -> None:
        self._payload = clark(name)
        self._parser.StartElementHandler = None


def parse_framed(raw: bytes, opening: bytes = ROOT) -> Stanza:
    """The stanza in framed bytes, by a parser of its own; StreamError unless they are exactly one element.

    `opening` is a start tag of `ROOT_NAME` with the declarations that are in force around the stanza.
    """
    heads: list[tuple[str, dict[str, str]]] = []
    parser = ParserCreate("utf-8", SEPARATOR)

    def start(name: str, attrs: dict[str, str]) -> None:
        heads.append((name, attrs))
        if len(heads) == 2:
            parser.StartElementHandler = None

    try:
        parser.Parse(opening, False)
        parser.StartElementHandler = start
        parser.Parse(raw, False)
        parser.Parse(ROOT_END, True)
    except ExpatError as error:
        raise well_formedness(error) from None
    finally:
        parser.StartElementHandler = None  # or parser and function would keep each other alive
    name, attrs = heads[0]
    payload = clark(heads[1][0]) if len(heads) == 2 and name not in _WITHOUT_PAYLOAD else ""
    return Stanza(_kind(name), attrs, raw, payload=payload)


def without_sections(stanza: Stanza, limits: Limits) -> Stanza:
    """The same stanza with its CDATA sections written as text; StreamError when that exceeds `limits`."""
    raw = stanza.raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # what is joined must not become one end
    out, at = [], 0
    while (start := raw.find(CDATA, at)) >= 0:
        end = raw.index(CDATA_END, start)
        out += [raw[at:start], escape_bytes(raw[start + len(CDATA) : end])]
        at = end + len(CDATA_END)
        if raw.startswith((b">", b"]>"), at):  # what the section ended with may not make it an end of CDATA
            bracket = raw.index(b">", at)
            out += [raw[at:bracket], b"&gt;"]
            at = bracket + 1
    data = b"".join([*out, raw[at:]])
    return Stanza(stanza.kind, stanza.attrs, _bounded(data, limits), payload=stanza.payload)


def canonical(raw: bytes, opening: bytes, limits: Limits) -> Stanza:
    """The stanza in framed bytes, rewritten so that it needs nothing from outside but the default namespace.

    Raises StreamError for bytes that are not exactly one element, and for a result above the bounds of
    `limits`.
    """
    try:
        tree = parse_within(opening, raw, ROOT_END)
    except ExpatError as error:
        raise well_formedness(error) from None
    return parse_framed(_bounded(serialize(tree), limits))


def _bounded(data: bytes, limits: Limits) -> bytes:
    if len(data) > limits.stanza_bytes:
        raise StreamError("policy-violation", "stanza too big")
    return data
