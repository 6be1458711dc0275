"""Old addresses and what they are called here: normalised by RFC 7622, and renamed by a map."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from xmppd.errors import JidError
from xmppd.jid import Jid
from xmppd.migrate.source import SourceError

MOST_DOMAINS: Final = 1000
"""Domains that are remembered."""

_PLAIN = re.compile(r"[a-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True)
class AddressMap:
    """Renames domains and accounts; the keys are as the source has them. An account's own entry wins."""

    domains: Mapping[str, str] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, address: str) -> str:
        """An address of the source, with its resource, as it is called here."""
        if not self.domains and not self.accounts:
            return address
        bare, slash, resource = address.partition("/")
        bare = self._bare(bare)
        return f"{bare}{slash}{resource}"

    def _bare(self, bare: str) -> str:
        if (found := self.accounts.get(bare)) is not None:
            return found
        local, at, domain = bare.rpartition("@")
        return f"{local}{at}{self.domains.get(domain, domain)}"

    def account(self, local: str, domain: str) -> Jid:
        """The bare JID of an account; JidError. Its parts are taken as they are: an `@` in the name makes no
        other domain.
        """
        found = self.accounts.get(f"{local}@{domain}")
        if found is None:
            return Jid.of(local, self.domains.get(domain, domain))
        jid = Jid.parse(found)
        if not jid.local or jid.resource:
            raise JidError(f"{found}, to which it is mapped, is not the name of an account")
        return jid


class PlainAddresses:
    """Bare addresses here of those that need not be parsed: whose name is of letters that stay what they are,
    at a domain that was parsed before.
    """

    def __init__(self, addresses: AddressMap) -> None:
        self._addresses = addresses
        self._domains: dict[str, str] = {}

    def here(self, address: str) -> str | None:
        """The bare address; None where it has to be parsed."""
        local, _, domain = address.partition("@")
        found = self._domains.get(domain)
        if found is None:
            found = self._domain(domain)
        if not found or not _PLAIN.fullmatch(local) or address in self._addresses.accounts:
            return None
        return address if found == domain else f"{local}@{found}"

    def _domain(self, domain: str) -> str:
        """What a domain of the source is here, "" where it is none."""
        try:
            jid = Jid.parse(self._addresses.domains.get(domain, domain))
        except JidError:
            here = ""
        else:
            here = "" if jid.local or jid.resource else jid.domain
        if len(self._domains) < MOST_DOMAINS:
            self._domains[domain] = here
        return here


def read_map(path: Path) -> AddressMap:
    """A map from a CSV file without a header: old and new name in each row, both domains or both accounts.
    Rows that begin with `#` are notes. SourceError with the line.
    """
    domains: dict[str, str] = {}
    accounts: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            for row in rows:
                if row and not row[0].lstrip().startswith("#"):
                    _add([cell.strip() for cell in row], domains, accounts, path, rows.line_num)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise SourceError(f"is no map: {error}", file=path) from None
    return AddressMap(domains, accounts)


def _add(row: list[str], domains: dict[str, str], accounts: dict[str, str], path: Path, line: int) -> None:
    if len(row) != 2 or not all(row) or ("@" in row[0]) != ("@" in row[1]):
        hint = "a row is `old.example,new.example` or `a@old.example,b@new.example`"
        raise SourceError(
            "this row of the map has no old and new name of one kind", file=path, line=line, hint=hint
        )
    table = accounts if "@" in row[0] else domains
    if table.setdefault(row[0], row[1]) != row[1]:
        raise SourceError(f"{row[0]} is mapped twice", file=path, line=line)
    try:
        Jid.parse(row[1])
    except JidError as error:
        raise SourceError(f"{row[1]} is no address: {error}", file=path, line=line) from None
