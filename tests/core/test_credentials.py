"""The credential columns of an account's row, there and back."""

import pytest

from xmppd.core.credentials import (
    ACCOUNT,
    LONGEST_SALT,
    MOST_ITERATIONS,
    NO_KEYS,
    BadKeys,
    columns_of,
    credentials_of,
    derive,
    info_of,
    keys_in,
)
from xmppd.stream.scram import HASHES, BadPassword, ScramKeys, derive_keys

EMPTY = dict.fromkeys(("account", *ACCOUNT.columns))


def test_keys_of_all_hashes_come_back_as_they_were() -> None:
    salts = {name: bytes([number]) * (number + 1) for number, name in enumerate(HASHES)}
    keys = {
        name: derive_keys(name, "pencil", salt, 10 + number)
        for number, (name, salt) in enumerate(salts.items())
    }
    columns = columns_of(keys)
    assert keys_in({**EMPTY, **columns}) == keys
    assert set(columns) == {"scram_sha_1", "scram_sha_256", "scram_sha_512", "scram_other"}
    assert columns["scram_sha_512"].startswith("SCRAM-SHA-512$12:")
    assert [text.partition("$")[0] for text in columns["scram_other"].split(" ")] == [
        "SCRAM-SHA-384",
        "SCRAM-SHA-224",
        "SCRAM-SHA3-512",
    ]
    assert columns_of({}) == {}
    assert keys_in({**EMPTY, **columns, **NO_KEYS}) == {}


def test_keys_of_a_hash_that_a_later_version_knows_are_passed_over() -> None:
    columns = columns_of({"sha384": derive_keys("sha384", "pencil", b"salt", 1)})
    columns["scram_other"] += " SCRAM-SHA-9999$1:AAAA$AAAA:AAAA"
    assert set(keys_in({**EMPTY, **columns})) == {"sha384"}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("md5", ScramKeys(b"salt", 4096, bytes(16), bytes(16))),
        ("sha1", ScramKeys(b"salt", 4096, bytes(32), bytes(32))),
        ("sha1", ScramKeys(b"salt", 4096, bytes(20), bytes(19))),
        ("sha1", ScramKeys(b"", 4096, bytes(20), bytes(20))),
        ("sha1", ScramKeys(bytes(LONGEST_SALT + 1), 4096, bytes(20), bytes(20))),
        ("sha1", ScramKeys(b"salt", 0, bytes(20), bytes(20))),
        ("sha1", ScramKeys(b"salt", -1, bytes(20), bytes(20))),
        ("sha1", ScramKeys(b"salt", MOST_ITERATIONS + 1, bytes(20), bytes(20))),
    ],
)
def test_keys_that_no_account_can_have(name: str, keys: ScramKeys) -> None:
    with pytest.raises(BadKeys):
        columns_of({name: keys})


def test_what_an_account_lacks() -> None:
    row = {**EMPTY, **columns_of({"sha224": derive_keys("sha224", "pencil", b"salt", 1)}), "imported": True}
    found = credentials_of(row, ("sha256", "sha1"))
    assert found is not None
    assert (found.missing, found.imported) == (("sha256", "sha1"), True)
    ours = credentials_of({**EMPTY, **derive("pencil", b"salt", 1)})
    assert ours is not None
    assert (ours.missing, ours.imported) == ((), False)
    empty = credentials_of(EMPTY)
    assert empty is not None
    assert empty.missing == ()
    assert info_of({**row, "account": "a@example.org"}).mechanisms == ("SCRAM-SHA-224",)
    assert info_of({**row, "account": "a@example.org"}).imported


@pytest.mark.parametrize(
    ("typed", "hashed"),
    [
        ("pencil", "pencil"),
        ("\ufb01sh", "fish"),
        ("soft\u00adhyphen", "softhyphen"),
        ("a\u0627", "a\u0627"),
        ("bell\a", "bell\a"),
    ],
)
def test_keys_of_a_plain_password_of_another_server(typed: str, hashed: str) -> None:
    columns = derive(typed, b"salt", 7, ("sha1", "sha512"), imported=True)
    assert keys_in({**EMPTY, **columns}) == {
        name: derive_keys(name, hashed, b"salt", 7) for name in ("sha1", "sha512")
    }


@pytest.mark.parametrize("typed", ["", "\u00e9" * 512, "nul\0", "\ud800"])
def test_what_is_no_password_of_another_server(typed: str) -> None:
    with pytest.raises(BadPassword):
        derive(typed, b"salt", 7, imported=True)
