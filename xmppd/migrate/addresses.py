"""Old addresses and what they are called here: normalised by RFC 7622, and renamed by a map."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xmppd.errors import JidError
from xmppd.jid import Jid
from xmppd.migrate.source import SourceError


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
