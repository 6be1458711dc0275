"""vCard4 and avatars of PEP (XEP-0292, XEP-0084) as the vcard-temp (XEP-0054) that a client had sent: the way
back of what XEP-0398 and Prosody's mod_vcard_legacy do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.xml.build import element

NODES: Final = frozenset((ns.VCARD4_NODE, ns.AVATAR_DATA, ns.AVATAR_METADATA))
"""The nodes of PEP whose items make a vCard."""

_NAME: Final = {
    "FAMILY": "surname",
    "GIVEN": "given",
    "MIDDLE": "additional",
    "PREFIX": "prefix",
    "SUFFIX": "suffix",
}
_ADDRESS: Final = {
    "POBOX": "pobox",
    "EXTADD": "ext",
    "STREET": "street",
    "LOCALITY": "locality",
    "REGION": "region",
    "PCODE": "code",
    "CTRY": "country",
}
_PLAIN: Final = {
    "fn": "FN",
    "nickname": "NICKNAME",
    "title": "TITLE",
    "role": "ROLE",
    "url": "URL",
    "note": "DESC",
    "tz": "TZ",
    "rev": "REV",
    "uid": "UID",
}
_TYPES: Final = {
    "home": "HOME",
    "work": "WORK",
    "voice": "VOICE",
    "fax": "FAX",
    "pager": "PAGER",
    "text": "MSG",
    "cell": "CELL",
    "video": "VIDEO",
}
"""RFC 6350 5.6 and 6.4.1 -> XEP-0054, in the order of its DTD."""

_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T.*)?", re.ASCII | re.DOTALL)
_GEO = re.compile(r"geo:([-+\d.]+),([-+\d.]+)", re.ASCII)
_DATA = re.compile(r"data:([^;,]*);base64,(.*)", re.DOTALL)
_MAGIC: Final = {"iVBOR": "image/png", "/9j/": "image/jpeg", "R0lG": "image/gif", "UklGR": "image/webp"}
"""How base64 of a picture begins."""


def vcard_of_nodes(nodes: Mapping[str, Sequence[tuple[str, Element]]]) -> Element | None:
    """The vCard of all PEP items of an account, as (id, payload) by node, the newest last."""
    card = _newest(nodes, ns.VCARD4_NODE)
    metadata = _newest(nodes, ns.AVATAR_METADATA)
    data = dict(nodes.get(ns.AVATAR_DATA, ()))
    wanted = _info(metadata).get("id", "") if metadata is not None else ""
    picture = data.get(wanted)
    if picture is None and (metadata is None or not wanted):
        picture = _newest(nodes, ns.AVATAR_DATA)
    return vcard_of_pep(card, picture, metadata)


def vcard_of_pep(
    vcard4: Element | None, avatar_data: Element | None, avatar_metadata: Element | None
) -> Element | None:
    """The `<vCard/>` of a `<vcard/>` (RFC 6351), and of `<data/>` and `<metadata/>` of an avatar (XEP-0084),
    each of them alone or within its item; None where nothing is in them.

    Metadata that name no picture say that there is none any more.
    """
    card = element(f"{{{ns.VCARD}}}vCard")
    photo = _avatar(_inner(avatar_data, ns.AVATAR_DATA), _inner(avatar_metadata, ns.AVATAR_METADATA))
    tree = _inner(vcard4, ns.VCARD4)
    for child in _properties(tree) if tree is not None else ():
        made = _property(child)
        if made is not None and not (made.tag == _temp("PHOTO") and photo is not None):
            card.append(made)
    if photo is not None:
        card.append(photo)
    return card if len(card) else None


def _temp(name: str) -> str:
    return f"{{{ns.VCARD}}}{name}"


def _newest(nodes: Mapping[str, Sequence[tuple[str, Element]]], node: str) -> Element | None:
    items = nodes.get(node)
    return items[-1][1] if items else None


def _inner(tree: Element | None, uri: str) -> Element | None:
    """The first element of a namespace in what may be the item around it."""
    if tree is None:
        return None
    return next((child for child in tree.iter() if child.tag.startswith(f"{{{uri}}}")), None)


def _properties(tree: Element) -> Iterator[Element]:
    """The properties of a vCard, those in groups (RFC 6351 5.2), too."""
    for child in tree:
        if child.tag == f"{{{ns.VCARD4}}}group":
            yield from child
        else:
            yield child


def _values(tree: Element, *names: str) -> list[str]:
    """The texts of all children with one of these names that have one."""
    tags = {f"{{{ns.VCARD4}}}{name}" for name in names}
    return [child.text for child in tree if child.tag in tags and child.text]


def _value(tree: Element) -> str:
    """What a property with one value says, whatever type it is of (RFC 6351 5.1)."""
    skipped = f"{{{ns.VCARD4}}}parameters"
    return next((child.text for child in tree if child.tag != skipped and child.text), "")


def _texts(names: Mapping[str, str], tree: Element) -> list[Element]:
    """Components as children: several values of one are separated by commas, as in vCard 3."""
    found = ((name, ",".join(_values(tree, old))) for name, old in names.items())
    return [element(_temp(name), None, text) for name, text in found if text]


def _types(tree: Element, allowed: Sequence[str]) -> list[Element]:
    """`<HOME/>`, `<WORK/>` and the like, of those that a property may have."""
    prefix = f"{{{ns.VCARD4}}}"
    path = f"{prefix}parameters/{prefix}type/{prefix}text"
    said = {(text.text or "").strip().lower() for text in tree.iterfind(path)}
    found = [element(_temp(_TYPES[kind])) for kind in _TYPES if kind in said and kind in allowed]
    preferred = f"{prefix}parameters/{prefix}pref/{prefix}integer"
    return found + ([element(_temp("PREF"))] if tree.find(preferred) is not None else [])


def _property(tree: Element) -> Element | None:
    """One property in the words of XEP-0054; None for what it has no word for, and where nothing is said."""
    name = tree.tag.removeprefix(f"{{{ns.VCARD4}}}")
    if name in _PLAIN:
        text = _value(tree)
        return element(_temp(_PLAIN[name]), None, text) if text else None
    convert = _CONVERSIONS.get(name)
    return convert(tree) if convert is not None else None


def _parts(tag: str, children: Sequence[Element], *more: Element) -> Element | None:
    """An element that says something only where it has `children`; `more` (its types) stand before them."""
    return element(_temp(tag), None, *more, *children) if children else None


def _name(tree: Element) -> Element | None:
    return _parts("N", _texts(_NAME, tree))


def _adr(tree: Element) -> Element | None:
    return _parts("ADR", _texts(_ADDRESS, tree), *_types(tree, ("home", "work")))


def _bday(tree: Element) -> Element | None:
    """ISO 8601 has hyphens in XEP-0054 and none in RFC 6350."""
    text = _value(tree)
    match = _DATE.fullmatch(text)
    day = f"{match[1]}-{match[2]}-{match[3]}" if match else text
    return element(_temp("BDAY"), None, day) if day else None


def _email(tree: Element) -> Element | None:
    text = _value(tree).removeprefix("mailto:")
    types = _types(tree, ("home", "work"))
    at = [element(_temp("INTERNET")), *(kind for kind in types if kind.tag == _temp("PREF"))]
    places = [kind for kind in types if kind.tag != _temp("PREF")]
    return element(_temp("EMAIL"), None, *places, *at, element(_temp("USERID"), None, text)) if text else None


def _tel(tree: Element) -> Element | None:
    text = _value(tree).removeprefix("tel:")
    number = [element(_temp("NUMBER"), None, text)] if text else []
    return _parts("TEL", number, *_types(tree, tuple(_TYPES)))


def _impp(tree: Element) -> Element | None:
    uri = _value(tree)
    return element(_temp("JABBERID"), None, uri[5:]) if uri[:5] == "xmpp:" and uri[5:] else None


def _org(tree: Element) -> Element | None:
    names = _values(tree, "text")
    tags = ["ORGNAME"] + ["ORGUNIT"] * len(names)
    return _parts("ORG", [element(_temp(tag), None, name) for tag, name in zip(tags, names, strict=False)])


def _categories(tree: Element) -> Element | None:
    return _parts("CATEGORIES", [element(_temp("KEYWORD"), None, word) for word in _values(tree, "text")])


def _geo(tree: Element) -> Element | None:
    match = _GEO.match(_value(tree))
    if match is None:
        return None
    return element(
        _temp("GEO"), None, element(_temp("LAT"), None, match[1]), element(_temp("LON"), None, match[2])
    )


def _picture(tree: Element) -> Element | None:
    """A photo of the vCard itself: its data or its address."""
    uri = _value(tree)
    match = _DATA.fullmatch(uri)
    return _photo(match[1], match[2], "") if match else _photo("", "", uri)


def _info(metadata: Element) -> Mapping[str, str]:
    """The attributes of the `<info/>` of a picture that is kept here, else of the first one, else none."""
    found = list(metadata.iter(f"{{{ns.AVATAR_METADATA}}}info"))
    here = [child for child in found if "url" not in child.attrib]
    return (here or found)[0].attrib if found else {}


def _avatar(data: Element | None, metadata: Element | None) -> Element | None:
    info = _info(metadata) if metadata is not None else None
    if info is not None and not info:
        return None
    kind, url = (info.get("type", ""), info.get("url", "")) if info is not None else ("", "")
    binary = (data.text or "").strip() if data is not None else ""
    return _photo(kind, binary, "" if binary else url)


def _photo(kind: str, binary: str, url: str) -> Element | None:
    """A `<PHOTO/>`; its type is taken from how the data begin where nobody says one."""
    if not binary:
        return _parts("PHOTO", [element(_temp("EXTVAL"), None, url)] if url else [])
    begun = next((_MAGIC[start] for start in _MAGIC if binary.startswith(start)), "")
    named = [element(_temp("TYPE"), None, kind or begun)] if kind or begun else []
    return _parts("PHOTO", [*named, element(_temp("BINVAL"), None, binary)])


_CONVERSIONS: Final[Mapping[str, Callable[[Element], Element | None]]] = {
    "n": _name,
    "adr": _adr,
    "bday": _bday,
    "email": _email,
    "tel": _tel,
    "impp": _impp,
    "org": _org,
    "categories": _categories,
    "geo": _geo,
    "photo": _picture,
}
