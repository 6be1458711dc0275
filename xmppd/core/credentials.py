"""An account's row in the store: its columns, and the credentials in them.

The credentials of each hash are a text in the form of RFC 5803:
"SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>". Each has its own salt and iterations. Hashes
that this server has no mechanism for share one column, a text after the other with a space between.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from xmppd.errors import JidError, XmppdError
from xmppd.jid import Jid
from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table, Value
from xmppd.stream.forms import scram_form
from xmppd.stream.sasl import Tenure
from xmppd.stream.scram import (
    ALGORITHMS,
    HASHES,
    Credentials,
    ScramKeys,
    derive_keys,
    prepare_password,
)

ACCOUNT = Table(
    name="account",
    partition=("account",),
    columns={
        "scram_sha_1": "text",
        "scram_sha_256": "text",
        "scram_sha_512": "text",
        "scram_other": "text",
        "imported": "bool",
        "created": "timestamp",
        "disabled": "bool",
        "changed": "int",
        "epoch": "int",
        "leaving": "bool",
    },
    person=Person(
        "account",
        secret={
            "scram_sha_1": "what a password is checked by",
            "scram_sha_256": "what a password is checked by",
            "scram_sha_512": "what a password is checked by",
            "scram_other": "what a password is checked by",
        },
        stays=True,
    ),
)

MADE = ("sha256", "sha1")
"""Hashes of which keys are made of a new password, unless more mechanisms are offered."""

LONGEST_SALT = 256
MOST_ITERATIONS = 10_000_000
"""Bounds of keys that come from elsewhere: bytes, and what costs a login seconds."""

_OTHER = "scram_other"
_COLUMNS = {name: mechanism.lower().replace("-", "_") for mechanism, name in ALGORITHMS.items()}
_NAMES = {mechanism: name for name, mechanism in HASHES.items()}

NO_KEYS: Mapping[str, None] = MappingProxyType(
    dict.fromkeys((*_COLUMNS.values(), _OTHER, "imported"))  # what holds keys of a password, and nothing else
)
"""All credential columns, empty: what replaces the credentials of a row begins with these."""


class BadKeys(XmppdError, ValueError):
    """Keys that no account can have: of an unknown hash, of another length than its, or out of bounds."""


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """What may be shown of an account. `created` is in seconds since the epoch, None when unknown;
    `mechanisms` are those it has keys for, of which the server may offer others or none; `imported`: the keys
    were another server's.
    """

    account: str
    created: float | None
    disabled: bool
    mechanisms: tuple[str, ...]
    imported: bool = False


def derive(
    password: str, salt: bytes, iterations: int, hashes: Sequence[str] = MADE, *, imported: bool = False
) -> dict[str, str]:
    """The credential columns of a row for this password; BadPassword. Costs milliseconds.

    With `imported` for an account of another server: of the form that clients of SCRAM hash, and of any
    password that another server took.
    """
    form = scram_form(password) if imported else prepare_password(password)
    return derive_prepared(form, salt, iterations, hashes)


def derive_prepared(password: str, salt: bytes, iterations: int, hashes: Sequence[str]) -> dict[str, str]:
    """The same for a password in the form in which it is hashed."""
    return columns_of({name: derive_keys(name, password, salt, iterations) for name in hashes})


def columns_of(keys: Mapping[str, tuple[bytes, int, bytes, bytes]]) -> dict[str, str]:
    """The credential columns of a row with these `ScramKeys`, by hashlib's name of their hash; BadKeys.

    Other credential columns are not in it: `{**NO_KEYS, **columns_of(keys), "imported": True}` replaces all.
    """
    columns: dict[str, str] = {}
    for name, (salt, iterations, stored, server) in keys.items():
        _check(name, salt, iterations, stored, server)
        text = f"{HASHES[name]}${iterations}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"
        column = _COLUMNS.get(name, _OTHER)
        columns[column] = f"{columns[column]} {text}" if column in columns else text
    return columns


def keys_in(row: Mapping[str, Value]) -> dict[str, ScramKeys]:
    """All keys of a row, by hashlib's name of their hash: the way back of `columns_of`."""
    keys = {}
    for name, column in _COLUMNS.items():
        if text := row[column]:
            keys[name] = _parse_keys(str(text))
    if others := row[_OTHER]:
        for text in str(others).split(" "):
            if name := _NAMES.get(text.partition("$")[0], ""):
                keys[name] = _parse_keys(text)
    return keys


def credentials_of(row: Row, hashes: Sequence[str] = MADE) -> Credentials | None:
    """What the row lets log in; None for an account that is being removed. Of each of `hashes` it should have
    keys, if of any.
    """
    if row["leaving"]:
        return None
    keys = keys_in(row)
    return Credentials(
        keys,
        disabled=bool(row["disabled"]),
        tenure=Tenure(row["created"], row["epoch"]),
        missing=tuple(name for name in hashes if name not in keys) if keys else (),
        imported=bool(row["imported"]),
    )


def identity_of(row: Row) -> Row:
    """What no other account of the name has, nor this one after a change: when it was made and the number of
    its last change, or all of the row where the former is not known.
    """
    columns = ACCOUNT.columns if row["created"] is None else ("created", "changed")
    return {column: row[column] for column in columns}


async def settled(store: Store, account: str) -> Row | None:
    """The row of an account when no write of it that was begun before can come to be any more."""
    await store.put_if(ACCOUNT, {"account": account, "changed": -1}, {"changed": -1})  # it never holds that
    return await store.get(ACCOUNT, (account,))


def is_made_at(row: Row, created: float | None) -> bool:
    """Whether it is the account that was made then, to the millisecond that an engine may keep."""
    if row["created"] is None or created is None:
        return row["created"] is created
    return abs(float(row["created"]) - created) < 0.0015


def info_of(row: Row) -> AccountInfo:
    """What may be shown of the row's account; one whose removal was not finished is a disabled one."""
    mechanisms = tuple(mechanism for name, mechanism in HASHES.items() if name in keys_in(row))
    is_disabled = bool(row["disabled"] or row["leaving"])
    return AccountInfo(row["account"], row["created"], is_disabled, mechanisms, bool(row["imported"]))


def _check(name: str, salt: bytes, iterations: int, stored: bytes, server: bytes) -> None:
    if name not in HASHES:
        raise BadKeys(f"{name} is not a hash of which keys can be kept ({', '.join(HASHES)})")
    size = hashlib.new(name).digest_size
    if len(stored) != size or len(server) != size:
        raise BadKeys(f"keys of {name} have {size} bytes, not {len(stored)} and {len(server)}")
    if not 0 < len(salt) <= LONGEST_SALT:
        raise BadKeys(f"a salt has 1 to {LONGEST_SALT} bytes, not {len(salt)}")
    if not 0 < iterations <= MOST_ITERATIONS:
        raise BadKeys(f"there can be 1 to {MOST_ITERATIONS} iterations, not {iterations}")


def _parse_keys(text: str) -> ScramKeys:
    _, parameters, pair = text.split("$")
    iterations, salt = parameters.split(":")
    stored, server = map(binascii.a2b_base64, pair.split(":"))
    return ScramKeys(binascii.a2b_base64(salt), int(iterations), stored, server)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def checked(account: str) -> str:
    """The name of an account as it is kept; JidError when it cannot be one."""
    jid = Jid.parse(account)
    if not jid.local or jid.resource:
        raise JidError(f"{account} is not the name of an account: that is user@domain")
    return jid.bare
