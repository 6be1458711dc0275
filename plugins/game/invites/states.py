"""The life of an invite: pending, and then one of four ends, for ever. Plain values, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import jwt

PENDING: Final = "pending"
ACCEPTED: Final = "accepted"
DECLINED: Final = "declined"
CANCELLED: Final = "cancelled"
EXPIRED: Final = "expired"
ENDS: Final = frozenset((ACCEPTED, DECLINED, CANCELLED, EXPIRED))
KINDS: Final = ("game", "match", "party")
COLUMNS: Final[Mapping[str, Literal["text", "timestamp"]]] = {
    "peer": "text",
    "kind": "text",
    "target": "text",
    "game": "text",
    "payload": "text",
    "at": "timestamp",
    "expires": "timestamp",
    "state": "text",
}


@dataclass(frozen=True, slots=True)
class Invite:
    """One as it is kept. `at` and `expires` are seconds since the epoch; `target` is the id of a game, match
    or party, `game` that of the game it is about, `payload` what the game's own servers or clients make of
    it.
    """

    id: str
    sender: str
    to: str
    kind: str
    target: str
    game: str
    payload: str
    at: float
    expires: float
    state: str = PENDING

    def at_time(self, now: float) -> Invite:
        """As it stands at a moment: one that was not answered in time is expired, whoever has said so."""
        return self.ended(EXPIRED) if self.state == PENDING and now >= self.expires else self

    def ended(self, state: str) -> Invite:
        """The same in another state."""
        return replace(self, state=state)

    def is_same(self, other: Invite) -> bool:
        """Whether both invite the same one to the same thing, by the same."""
        mine = self.sender, self.to, self.kind, self.target, self.game
        return mine == (other.sender, other.to, other.kind, other.target, other.game)


def row_of(one: Invite) -> dict[str, Any]:
    """An invite as it is kept, with who gets it."""
    values = values_of(one)
    return {"account": values.pop("to"), "peer": values.pop("sender"), **values}


def values_of(one: Invite) -> dict[str, Any]:
    """The same as other nodes are told of it."""
    return {name: getattr(one, name) for name in Invite.__slots__}


def invite_of(row: Mapping[str, Any]) -> Invite:
    """An invite from its row."""
    values = {name: row[name] for name in COLUMNS if name != "peer"}
    return Invite(id=row["id"], sender=row["peer"], to=row["account"], **values)


def claims_of(invite: Invite, issuer: str) -> dict[str, Any]:
    """What a token says of an invite (RFC 7519)."""
    return {
        "iss": issuer,
        "sub": invite.to,
        "jti": invite.id,
        "iat": int(invite.at),
        "exp": int(invite.expires),
        "inviter": invite.sender,
        "kind": invite.kind,
        "target": invite.target,
        "game": invite.game,
        "state": invite.state,
        "payload": invite.payload,
    }


def signed(claims: Mapping[str, Any], key: str, key_id: str) -> str:
    """A JWT: by EdDSA where the key is a private one in PEM (Ed25519), else by HS256."""
    algorithm = "EdDSA" if key.lstrip().startswith("-----BEGIN") else "HS256"
    return jwt.encode(dict(claims), key, algorithm=algorithm, headers={"kid": key_id})
