"""What a message says in its elements, and the same with other texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Final

from xmppd import ns
from xmppd.plugin import Stanza, stanza_of

XHTML: Final = f"{{{ns.XHTML_IM}}}html"
BODY: Final = f"{{{ns.CLIENT}}}body"
SEALED: Final = frozenset((ns.OMEMO, ns.OMEMO_2, ns.OPENPGP, ns.OLD_OPENPGP, ns.JINGLE_MESSAGE))
"""Namespaces of what nobody reads on the way."""
PICTURES: Final = (f"{{{ns.VCARD}}}BINVAL", f"{{{ns.VCARD}}}TYPE")
ONLY_BODY: Final = re.compile(rb"<[^<]*><body>([^<]*)</body></message>").fullmatch
"""Finds the text, as it is written, of a message that has no other child: sooner than the next one."""
ONE_TEXT: Final = re.compile(rb"<[^<]*><body>([^<]*)</body>(?:<[^!<>][^<>]*>)+").fullmatch
"""Finds the text, as it is written, of a message whose body is its first child, where no other text follows,
as in nearly all.
"""
_ENTITIES: Final = (("&apos;", "'"), ("&quot;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))
"""That of the others last."""


def body_of(message: Stanza) -> str | None:
    """What the body of a message says, where that is its only text; None: look at it as a whole."""
    found = ONE_TEXT(message.raw)
    return None if found is None else unescaped(found[1].decode())


def status_in(raw: bytes) -> bytes | None:
    """The only text that a presence says in words, as it is written; None: it has to be looked at as a
    whole.
    """
    head, _, rest = raw.partition(b"<status>")
    text, tag, more = rest.partition(b"</status>")
    if not tag or any(part.find(name) >= 0 for part in (head, more) for name in (b"<status", b"<nick")):
        return None
    return text


def unescaped(text: str) -> str | None:
    """What is written so between two tags; None: in a way that is not usual."""
    if "&" not in text:
        return text
    if "&#" in text:
        return None
    for entity, char in _ENTITIES:
        text = text.replace(entity, char)
    return text


def texts_of(message: Stanza) -> list[str]:
    """All texts that it has in its elements; what is marked up is one. Only what can be read."""
    found: list[str] = []
    for child in message.xml:
        if child.tag.partition("}")[0][1:] in SEALED:
            continue
        if child.tag == XHTML:
            found.append("".join(child.itertext()))
            continue
        for part in child.iter():
            found.append(part.text or "")
            if part is not child:
                found.append(part.tail or "")
    return [text for text in found if text and not text.isspace()]


def spoken_in(iq: Stanza) -> list[str]:
    """All texts of a request, but for pictures; those in JSON are found by `json_texts`."""
    return [
        text
        for part in iq.xml.iter()
        for text in (part.text, part.tail)
        if text and not text.isspace() and part.tag not in PICTURES
    ]


def json_texts(text: str) -> list[str]:
    """The texts in JSON, names of fields as well; what is none is one text."""
    if text.lstrip()[:1] not in ("{", "["):
        return [text]
    try:
        left, found = [json.loads(text)], list[str]()
    except (ValueError, RecursionError):
        return [text]
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
    return found


def changed(message: Stanza, change: Callable[[str], str]) -> Stanza:
    """The message with other texts: markup with any other one goes."""
    tree = deepcopy(message.xml)
    for child in list(tree):
        if child.tag.partition("}")[0][1:] in SEALED:
            continue
        if child.tag == XHTML:
            text = "".join(child.itertext())
            if change(text) != text:
                tree.remove(child)
            continue
        for part in child.iter():
            if part.text:
                part.text = change(part.text)
            if part is not child and part.tail:
                part.tail = change(part.tail)
    return stanza_of(tree)
