"""Addresses: `local@domain/resource`, normalised and enforced by RFC 7622."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address

import idna
from precis_i18n import get_profile
from precis_i18n.profile import Profile

from xmppd.errors import JidError

MAX_BYTES = 1023
"""Of each part, in UTF-8 (RFC 7622 3.2, 3.3, 3.4)."""

_MAX_TEXT = 3 * MAX_BYTES + 2
_CACHE_SIZE = 8192
_MAX_CACHED_TEXT = 256

# What these match is normalised by lower-casing alone (a resource: as it is). All else takes the long way.
_LABEL = r"(?!..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_USUAL_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_USUAL_LOCAL = re.compile(r"[!#-%(-.0-9;=?A-Z\[-~]+")
_USUAL_RESOURCE = re.compile(r"[ -~]+")

_FORBIDDEN_IN_LOCAL = re.compile("[\"&'/:<>@ ]")
_USERNAME = get_profile("UsernameCaseMapped")
_OPAQUE = get_profile("OpaqueString")


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
    if len(text) > _MAX_TEXT:
        raise JidError("the address is too long")
    rest, slash, resource = text.partition("/")
    local, at, domain = rest.partition("@") if "@" in rest else ("", "", rest)
    return _assemble(
        _local(local) if at else "",
        _domain(domain),
        prepare_resource(resource) if slash else "",
    )


_parse_cached = lru_cache(maxsize=_CACHE_SIZE)(_parse)


def release() -> None:
    """Give up the memory of the addresses that are cached."""
    _parse_cached.cache_clear()


def _assemble(local: str, domain: str, resource: str) -> Jid:
    bare = f"{local}@{domain}" if local else domain
    return Jid(local, domain, resource, bare, f"{bare}/{resource}" if resource else bare)


def _local(text: str) -> str:
    """RFC 7622 3.3: UsernameCaseMapped, less eight characters."""
    if _USUAL_LOCAL.fullmatch(text):
        return _bounded(text.lower(), "local part")
    local = _enforced(_USERNAME, text, "local part")
    if _FORBIDDEN_IN_LOCAL.search(local):
        raise JidError("the local part has a character that is not allowed there")
    return local


def prepare_resource(text: str) -> str:
    """A resource, normalised (RFC 7622 3.4: OpaqueString); JidError if it cannot be one."""
    if _USUAL_RESOURCE.fullmatch(text):
        return _bounded(text, "resource")
    return _enforced(_OPAQUE, text, "resource")


def _domain(text: str) -> str:
    """RFC 7622 3.2: labels of IDNA 2008 (RFC 5895 mapping by UTS 46, A-labels turned to U-labels), or an IP
    literal.
    """
    if _USUAL_DOMAIN.fullmatch(text):
        return _bounded(text.lower(), "domain")
    try:
        if text.startswith("[") and text.endswith("]") and "%" not in text:
            return f"[{IPv6Address(text[1:-1]).compressed}]"
        domain = idna.uts46_remap(text).removesuffix(".")
        labels = [idna.ulabel(label) for label in domain.split(".")]
        for label in labels:
            idna.alabel(label)  # is it short enough for DNS?
    except ValueError:
        raise JidError("the domain is not valid") from None
    return _bounded(".".join(labels), "domain")


def _enforced(profile: Profile, text: str, part: str) -> str:
    try:
        enforced: str = profile.enforce(text)
    except ValueError:
        raise JidError(f"the {part} is empty or has a character that is not allowed there") from None
    return _bounded(enforced, part)


def _bounded(text: str, part: str) -> str:
    if len(text.encode()) > MAX_BYTES:
        raise JidError(f"the {part} is longer than {MAX_BYTES} bytes")
    return text
