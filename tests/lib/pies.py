"""Documents of XEP-0227 made and read by tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xmppd.migrate.formats.pie import FORMAT
from xmppd.migrate.record import Account, Losses, Unreadable
from xmppd.migrate.source import Options

PIE = "xmlns='urn:xmpp:pie:0' xmlns:xi='http://www.w3.org/2001/XInclude'"


def read(path: Path, **options: Any) -> tuple[list[Account | Unreadable], Losses]:
    losses = Losses()
    found = list(FORMAT.open(path, Options(losses=losses, **options)))
    return found, losses


def accounts(path: Path, **options: Any) -> list[Account]:
    found, _ = read(path, **options)
    assert not [account for account in found if isinstance(account, Unreadable)]
    return [account for account in found if isinstance(account, Account)]


def of(tmp_path: Path, inner: str, user: str = "name='a'", **options: Any) -> tuple[Account, Losses]:
    found, losses = read(document(tmp_path, f"<user {user}>{inner}</user>"), **options)
    assert len(found) == 1
    assert isinstance(found[0], Account), found[0]
    return found[0], losses


def document(tmp_path: Path, users: str, name: str = "main.xml", quote: str = "'") -> Path:
    path = tmp_path / name
    root = f"<server-data {PIE}>".replace("'", quote)
    path.write_text(f"<?xml version='1.0' encoding='UTF-8'?>{root}<host jid='x'>{users}</host></server-data>")
    return path


def roster(inner: str) -> str:
    return f"<query xmlns='jabber:iq:roster' version='7'>{inner}</query>"
