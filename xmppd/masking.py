"""Stanzas as operators may see them: what they are and where they go, without what people wrote."""

from __future__ import annotations

import re
from typing import Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.xml.build import serialize
from xmppd.xml.stanza import LANG, parse

MASK: Final = "\N{HORIZONTAL ELLIPSIS}"
LONGEST: Final = 16_384
"""Bytes of a stanza that is shown as more than its start tag."""
CHARACTERS: Final = 4_000
"""Of what is shown."""
OPEN: Final = frozenset(
    "from to id type xmlns jid node subscription ask approved ver stamp by hash code h max var action "
    "sessionid affiliation role seconds mechanism queryid".split()
)
"""Attributes that say what something is, and nothing of what people wrote."""

_HEAD: Final = re.compile(rb"<(?:[^>'\"]|'[^']*'|\"[^\"]*\")*>")
_SECRET: Final = re.compile("(?i)passw|secret|token|credential|digest|(?:^|[^a-z])pin(?:$|[^a-z])")
_TOKEN: Final = re.compile(r"xmppd_[A-Za-z0-9_-]{8,}")
"""A token for HTTP, wherever it stands."""
_LOGIN: Final = tuple(f"{{{name}}}" for name in (ns.SASL, ns.SASL2, ns.FAST))
"""What elements of a login begin with."""
_FIELD: Final = f"{{{ns.DATA_FORM}}}field"


def shown(raw: bytes, *, with_text: bool = False) -> str:
    """A stanza as text. Character data and attributes that may be anybody's words are masked unless
    `with_text`; passwords, tokens and the like are in any case. Of a long one there is the start tag.
    """
    if len(raw) > LONGEST:
        head = _HEAD.match(raw)
        raw = raw[: head.end() - 1] + b"/>" if head is not None and raw[head.end() - 2 :][:1] != b"/" else b""
    if not raw:
        return ""
    text = serialize(_masked(parse(raw), with_text=with_text, is_secret=False)).decode()
    text = _TOKEN.sub(MASK, text)
    return text if len(text) <= CHARACTERS else text[:CHARACTERS] + MASK


def _masked(tree: Element, *, with_text: bool, is_secret: bool) -> Element:
    is_secret = is_secret or _is_secret(tree)
    attrs = {
        name: value if (name in OPEN and not is_secret) or _may_show(name, with_text, is_secret) else MASK
        for name, value in tree.attrib.items()
    }
    copy = Element(tree.tag, attrs)
    copy.text = _text(tree.text, with_text=with_text and not is_secret)
    for child in tree:
        inner = _masked(child, with_text=with_text, is_secret=is_secret)
        inner.tail = _text(child.tail, with_text=with_text and not is_secret)
        copy.append(inner)
    return copy


def _may_show(name: str, with_text: bool, is_secret: bool) -> bool:
    return name == LANG or (with_text and not is_secret and not _SECRET.search(name))


def _is_secret(tree: Element) -> bool:
    """Whether something in it lets somebody in."""
    if _SECRET.search(tree.tag) or tree.tag.startswith(_LOGIN):
        return True
    return tree.tag == _FIELD and (
        tree.get("type") == "text-private" or bool(_SECRET.search(tree.get("var", "")))
    )


def _text(text: str | None, *, with_text: bool) -> str | None:
    return text if with_text or not text or text.isspace() else MASK
