"""Addresses: `local@domain/resource`, normalised and enforced by RFC 7622."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address

import idna

from xmppd import precis
from xmppd.errors import JidError

MAX_BYTES = 1023
"""Of each part, in UTF-8 (RFC 7622 3.2, 3.3, 3.4)."""

_MAX_TEXT = precis.MAX_SHRINKAGE * MAX_BYTES
"""Characters of a part that may still become short enough."""
_MAX_LABEL = 63
_SHORT_LABEL = 7
"""Characters of a label that is short enough for certain: Punycode has at most 8 letters for one."""
_CACHE_SIZE = 8192
_MAX_CACHED_TEXT = 256
_REFUSALS = 1024

# What these match is normalised by lower-casing alone (a resource: as it is). All else takes the long way.
_LABEL = r"(?!..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_USUAL_LABEL = re.compile(_LABEL)
_USUAL_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_USUAL_LOCAL = re.compile(r"[!#-%(-.0-9;=?A-Z\[-~]+")
_USUAL_RESOURCE = re.compile(r"[ -~]+")

_FORBIDDEN_IN_LOCAL = re.compile("[\"&'/:<>@ ]")
_RIGHT_TO_LEFT = ("R", "AL", "AN", "")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Jid:
    """An address; made by `parse` and `of` only. A part that is absent is "".

    `bare` is without the resource, `full` the whole (for a bare address they are the same). Equal when `full`
    is.
    """

    local: str
    domain: str
    resource: str
    bare: str
    full: str

    @staticmethod
    def parse(text: str) -> Jid:
        """The address written as `text` (RFC 7622 3.1); JidError if it is none. Results are cached."""
        return _parse_cached(text) if len(text) <= _MAX_CACHED_TEXT else _parse(text)

    @staticmethod
    def of(local: str, domain: str, resource: str = "") -> Jid:
        """The address with these parts, each normalised; JidError if one of them cannot be."""
        return _assemble(
            _local(local) if local else "",
            _domain(domain),
            prepare_resource(resource) if resource else "",
        )

    @property
    def is_bare(self) -> bool:
        """Has it no resource?"""
        return not self.resource

    def with_resource(self, resource: str) -> Jid:
        """The same account's (or domain's) address with this resource; JidError if it cannot be one."""
        return _assemble(self.local, self.domain, prepare_resource(resource))

    def __str__(self) -> str:
        return self.full

    def __repr__(self) -> str:
        return f"Jid({self.full!r})"

    def __eq__(self, other: object) -> bool:
        return self.full == other.full if isinstance(other, Jid) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.full)


def _parse(text: str) -> Jid:
    if len(text) > 3 * _MAX_TEXT + 2:
        raise JidError("the address is too long")
    rest, slash, resource = text.partition("/")
    local, at, domain = rest.partition("@") if "@" in rest else ("", "", rest)
    return _assemble(
        _local(local) if at else "",
        _domain(domain),
        prepare_resource(resource) if slash else "",
    )


@lru_cache(maxsize=_REFUSALS)
def _judged(text: str) -> Jid | str:
    """The address, or why it is none: an exception would not be remembered."""
    try:
        return _parse(text)
    except JidError as error:
        return str(error)


@lru_cache(maxsize=_CACHE_SIZE)
def _parse_cached(text: str) -> Jid:
    found = _judged(text)
    if isinstance(found, str):
        raise JidError(found)
    return found


def domain_of(address: str) -> str:
    """The domain of a JID in normal form."""
    return address.partition("/")[0].rpartition("@")[2]


def load() -> None:
    """Load the tables for domains that are not ASCII, which takes 25 ms: once, before there are clients."""
    idna.uts46_remap("\u00e9")


def release() -> None:
    """Give up the memory of the addresses that are cached."""
    _parse_cached.cache_clear()
    _judged.cache_clear()


def _assemble(local: str, domain: str, resource: str) -> Jid:
    bare = f"{local}@{domain}" if local else domain
    return Jid(local, domain, resource, bare, f"{bare}/{resource}" if resource else bare)


def _local(text: str) -> str:
    """RFC 7622 3.3: UsernameCaseMapped, less eight characters."""
    if len(text) <= MAX_BYTES and _USUAL_LOCAL.fullmatch(text):
        return text.lower()
    try:
        local = precis.username(text, MAX_BYTES)
    except precis.PrecisError as error:
        raise JidError(f"the local part is not valid: {error}") from None
    if _FORBIDDEN_IN_LOCAL.search(local):
        raise JidError("the local part has a character that is not allowed there")
    return local


def prepare_resource(text: str) -> str:
    """A resource, normalised (RFC 7622 3.4: OpaqueString); JidError if it cannot be one."""
    if len(text) <= MAX_BYTES and _USUAL_RESOURCE.fullmatch(text):
        return text
    try:
        return precis.opaque(text, MAX_BYTES)
    except precis.PrecisError as error:
        raise JidError(f"the resource is not valid: {error}") from None


def _domain(text: str) -> str:
    """RFC 7622 3.2: labels of IDNA 2008 (RFC 5895 mapping by UTS 46, A-labels turned to U-labels), or an IP
    literal.
    """
    if len(text) > _MAX_TEXT:
        raise JidError("the domain is too long")
    if _USUAL_DOMAIN.fullmatch(text):
        return _bounded(text.lower())
    try:
        if text.startswith("[") and text.endswith("]") and "%" not in text:
            return f"[{IPv6Address(text[1:-1]).compressed}]"
        precis.refuse_piles(text)
        labels = idna.uts46_remap(text).removesuffix(".").split(".")
        return _bounded(".".join(map(_label, labels)))
    except ValueError:
        raise JidError("the domain is not valid") from None


def _label(text: str) -> str:
    """One label after the mapping, as a U-label; ValueError for one that is none, or too long for DNS."""
    if len(text) > _MAX_LABEL:
        raise ValueError(text)
    if _USUAL_LABEL.fullmatch(text):
        return text
    if text.isascii() or not all(map(_is_easy, text)) or not _is_easy_start(text):
        text = idna.ulabel(text)
        idna.alabel(text)
    elif len(text) > _SHORT_LABEL and len(text.encode("punycode")) > _MAX_LABEL - len("xn--"):
        raise ValueError(text)
    return text


@lru_cache(maxsize=4096)
def _is_easy(char: str) -> bool:
    """Whether a character may stand in a label whatever is beside it, unless that is no easy one."""
    try:
        idna.check_label(f"a{char}a")
    except ValueError:
        return False
    return unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT


def _is_easy_start(label: str) -> bool:
    """Whether a label of easy characters begins and ends as one may (RFC 5891 4.2.3)."""
    hyphens = label[2:4] == "--" or label[0] == "-" or label[-1] == "-"
    return not hyphens and unicodedata.category(label[0])[0] != "M"


def _bounded(domain: str) -> str:
    if len(domain.encode()) > MAX_BYTES:
        raise JidError(f"the domain is longer than {MAX_BYTES} bytes")
    return domain
