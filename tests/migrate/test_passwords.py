"""Plain passwords that a shadow reads again: only those that became others are made keys of."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from xmppd.arriving import arrival_of, line_of, loaded
from xmppd.core.arrival import Arrival
from xmppd.core.digest import digest
from xmppd.migrate.prepare import Preparer
from xmppd.migrate.record import Account
from xmppd.migrating.feed import Passwords, Wanted, encoded, prepared_line
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


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.dictionaries(texts, texts, max_size=4))
def test_a_roster_has_the_hash_of_its_value(roster: dict[str, str]) -> None:
    pairs = [list(item) for item in roster.items()]
    parts, hashes = encoded({"roster": list(roster.items()), "last": 1e16, "private": {"b": "1", "a": "2"}})
    assert hashes == {"roster": digest(pairs), "last": digest(1e16), "private": digest({"a": "2", "b": "1"})}
    assert arrival_of(loaded(line_of(Arrival("a@x", parts=parts, hashes=hashes)))).parts == {
        "roster": pairs, "last": 1e16, "private": {"b": "1", "a": "2"}
    }  # fmt: skip


def test_a_password_may_be_no_text() -> None:
    roster, _ = encoded({"roster": [("b@x", "both\x1f\x1f")]})
    arrival = Arrival("a@x", {"password": "\udcff\u00e9"}, parts=roster)
    found = arrival_of(loaded(line_of(arrival)))
    assert found.credentials == {"password": "\udcff\u00e9"}
    assert found.parts == {"roster": [["b@x", "both\x1f\x1f"]]}
