"""Plain passwords that a shadow reads again: only those that became others are made keys of."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from xmppd.migrate.prepare import Preparer
from xmppd.migrate.record import Account
from xmppd.migrating.feed import Passwords, Wanted, prepared_line
from xmppd.migrating.shadowing import Marks


def line(account: Account, wanted: Wanted) -> tuple[dict[str, Any], dict[str, Any]]:
    with closing(Passwords(wanted)) as passwords:
        text, row = prepared_line(account, wanted, Preparer(), passwords)
    return json.loads(text), row


def test_keys_are_made_once(tmp_path: Path) -> None:
    with closing(Marks(tmp_path / "marks")) as marks:
        wanted = Wanted("", marks=str(marks.file), key=marks.key, iterations=4096)
        account = Account("anna", "x.example", password="a secret")
        first, row = line(account, wanted)
        assert first["credentials"]["scram_sha_256"]
        assert line(account, wanted)[0]["credentials"]
        marks.note([{**row, "done": "made"}])
        second, again = line(account, wanted)
        assert second["credentials"] == {}
        assert second["hashes"]["keys"] == first["hashes"]["keys"]
        assert again == row
        account.password = "another one"
        other, _ = line(account, wanted)
        assert other["credentials"]["scram_sha_256"]
        assert other["hashes"]["keys"] != first["hashes"]["keys"]
        marks.note([{**row, "done": "failed"}])
        account.password = "a secret"
        assert line(account, wanted)[0]["credentials"]


def test_another_account_may_have_the_same_password_and_another_key_knows_none(tmp_path: Path) -> None:
    accounts = [Account(name, "x.example", password="a secret") for name in ("anna", "bob")]
    found = set()
    for number in range(2):
        with closing(Marks(tmp_path / f"marks{number}")) as marks:
            wanted = Wanted("", marks=str(marks.file), key=marks.key, iterations=4096)
            found |= {line(account, wanted)[1]["mark"] for account in accounts}
    assert len(found) == 4


def test_without_a_memory_nothing_is_remembered() -> None:
    found, row = line(Account("anna", "x.example", password="a secret"), Wanted("", iterations=4096))
    assert found["credentials"]
    assert "keys" not in found["hashes"]
    assert "mark" not in row
