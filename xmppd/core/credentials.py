"""An account's row in the store: its columns, and the credentials in them.

The credentials column of each hash is a text in the form of RFC 5803:
"SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>".
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

from xmppd.store.table import Row, Table
from xmppd.stream.sasl import Tenure
from xmppd.stream.scram import ALGORITHMS, Credentials, ScramKeys, derive_keys, prepare_password

ACCOUNT = Table(
    name="account",
    partition=("account",),
    columns={
        "scram_sha_1": "text",
        "scram_sha_256": "text",
        "created": "timestamp",
        "disabled": "bool",
        "changed": "int",
        "epoch": "int",
        "leaving": "bool",
    },
)

_COLUMNS = {mechanism: mechanism.lower().replace("-", "_") for mechanism in ALGORITHMS}


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """What may be shown of an account. `created` is in seconds since the epoch, None when unknown."""

    account: str
    created: float | None
    disabled: bool
    mechanisms: tuple[str, ...]


def derive(password: str, salt: bytes, iterations: int) -> dict[str, str]:
    """The credential columns of a row for this password; BadPassword. Costs milliseconds."""
    prepared = prepare_password(password)
    columns = {}
    for mechanism, algorithm in ALGORITHMS.items():
        keys = derive_keys(algorithm, prepared, salt, iterations)
        text = f"{mechanism}${iterations}:{_base64(salt)}${_base64(keys.stored)}:{_base64(keys.server)}"
        columns[_COLUMNS[mechanism]] = text
    return columns


def credentials_of(row: Row) -> Credentials | None:
    """What the row lets log in; None for an account that is being removed."""
    if row["leaving"]:
        return None
    keys = {}
    for mechanism, algorithm in ALGORITHMS.items():
        if text := row[_COLUMNS[mechanism]]:
            keys[algorithm] = _parse_keys(text)
    return Credentials(keys, disabled=bool(row["disabled"]), tenure=Tenure(row["created"], row["epoch"]))


def identity_of(row: Row) -> Row:
    """What no other account of the name has, nor this one after a change: when it was made and the number of
    its last change, or all of the row where the former is not known.
    """
    columns = ACCOUNT.columns if row["created"] is None else ("created", "changed")
    return {column: row[column] for column in columns}


def info_of(row: Row) -> AccountInfo:
    """What may be shown of the row's account; one whose removal was not finished is a disabled one."""
    mechanisms = tuple(mechanism for mechanism, column in _COLUMNS.items() if row[column])
    is_disabled = bool(row["disabled"] or row["leaving"])
    return AccountInfo(row["account"], row["created"], is_disabled, mechanisms)


def _parse_keys(text: str) -> ScramKeys:
    _, parameters, pair = text.split("$")
    iterations, salt = parameters.split(":")
    stored, server = map(binascii.a2b_base64, pair.split(":"))
    return ScramKeys(binascii.a2b_base64(salt), int(iterations), stored, server)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
