"""Settings of the plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from xmppd.plugin import PluginConfig, PositiveFloat, SecretText, Section, at_least, at_most

Algorithm = Literal["EdDSA", "ES256", "RS256", "HS256"]


def _some(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must name one at least")
    return value


class IssuerConfig(Section):
    """Who issues tokens (`iss`) for whom (`aud`), signed in which ways by which keys; no token chooses. Keys
    are PEM texts, secrets of 32 bytes for HS256, or those of a JWKS at `jwks_url`. Clocks may differ by
    `leeway` seconds. `domains`: only for accounts of these; none named: of all.
    """

    issuer: str
    audience: str
    algorithms: Annotated[tuple[Algorithm, ...], _some]
    keys: tuple[SecretText, ...] = ()
    key_files: tuple[Path, ...] = ()
    jwks_url: str = ""
    leeway: Annotated[float, at_least(0), at_most(300)] = 30.0
    domains: frozenset[str] = frozenset()


class ClaimsConfig(Section):
    """Which claims are what; "" for none. `account` is the local part of an address, or a whole one."""

    account: str = "sub"
    name: str = "name"
    tag: str = "tag"
    roles: str = "roles"
    entitlements: str = "entitlements"


class GameLoginConfig(PluginConfig):
    """`issuers`: whose tokens let in. `claims`: what is read in them. `provision`: an account that is not
    there is made. `longest_hours`: a token that lasts longer lets nobody in; so long a revocation is kept.
    `names`: whether a player gets the name of his token (plugin `players`): the first time, always, never.
    `without_tls`: OAUTHBEARER also on streams without. `discovery`: a URL that clients are told whose token
    does not hold (RFC 7628 3.2.2), `scope`: what it would need. `jwks_allowed`: networks besides public
    addresses where a JWKS may be; `jwks_ca_file`: whose certificates it may have.
    """

    issuers: tuple[IssuerConfig, ...] = ()
    claims: ClaimsConfig = ClaimsConfig()
    provision: bool = True
    longest_hours: Annotated[PositiveFloat, at_most(24 * 366)] = 24.0
    names: Literal["first", "always", "never"] = "first"
    without_tls: bool = False
    discovery: str = ""
    scope: str = ""
    jwks_allowed: tuple[str, ...] = ()
    jwks_ca_file: str = ""
