"""From configuration to the rules of each part."""

from __future__ import annotations

import importlib
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from xmppd.access.callers import Configured, Token
from xmppd.config import Config
from xmppd.configfile import shipped
from xmppd.core.accounts import Accounts
from xmppd.core.binding import BindingRules
from xmppd.core.blocking import BlockingRules
from xmppd.core.brake import BrakeRules
from xmppd.core.credentials import MADE
from xmppd.core.managed import ManagementRules
from xmppd.core.presence import PresenceRules
from xmppd.core.tokens import DAY, TokenRules
from xmppd.errors import ConfigError
from xmppd.hooks import Hooks
from xmppd.net.c2s.service import ServiceRules
from xmppd.net.http.routes import HttpRules
from xmppd.net.wire import WireRules
from xmppd.settings import EVERYWHERE, address_of
from xmppd.stream.hashedtokens import BINDINGS, HashedToken, TokenSource
from xmppd.stream.plain import Anonymous, Plain
from xmppd.stream.sasl import Mechanism
from xmppd.stream.scram import ALGORITHMS, scram_mechanisms
from xmppd.text import host_and_port
from xmppd.xml.scan import Limits


def binding_rules(config: Config) -> BindingRules:
    """How resources are bound."""
    return BindingRules(config.sessions.conflict == "replace", config.limits.sessions_per_account)


def brake_rules(config: Config) -> BrakeRules:
    """How who guesses passwords is slowed down."""
    brake = config.auth.brake
    return BrakeRules(
        per_account=brake.failures_per_account,
        per_network=brake.failures_per_address,
        longest=brake.longest_seconds,
        forget=brake.forget_seconds,
        exempt=brake.exempt,
    )


def management_rules(config: Config) -> ManagementRules:
    """For how long and of how much sessions whose clients acknowledge can be resumed."""
    sessions, limits = config.sessions, config.limits
    return ManagementRules(
        seconds=sessions.resume_seconds,
        longest=sessions.resume_seconds_at_most,
        location=sessions.resume_location or "",
        detached=limits.detached_per_account,
        stanzas=limits.unacked_stanzas,
        bytes=limits.unacked_bytes,
        together=limits.unacked_bytes_of_all,
    )


def blocking_rules(config: Config) -> BlockingRules:
    """How many addresses an account may block."""
    return BlockingRules(config.limits.block_items, config.limits.block_bytes)


def presence_rules(config: Config) -> PresenceRules:
    """How many copies of its presence a session may cause."""
    limits = config.limits
    return PresenceRules(limits.presence_copy_rate, limits.presence_copy_burst, limits.presence_bytes)


def service_rules(config: Config) -> ServiceRules:
    """How clients are treated."""
    limits, sessions = config.limits, config.sessions
    scanned = Limits(
        stanza_bytes=limits.stanza_bytes,
        depth=limits.depth,
        attributes=limits.attributes,
        header_bytes=limits.header_bytes,
    )
    return ServiceRules(
        must_encrypt=config.tls.required,
        attempts=config.auth.attempts,
        login_seconds=config.auth.login_seconds,
        whitespace_after=sessions.whitespace_after,
        ping_after=sessions.ping_after,
        ping_timeout=sessions.ping_timeout,
        connections=limits.connections,
        connections_before_login=limits.connections_before_login,
        connections_before_login_per_address=limits.connections_before_login_per_address,
        stanza_rate=limits.stanza_rate,
        stanza_burst=limits.stanza_burst,
        limits=scanned,
        limits_before_login=replace(scanned, stanza_bytes=limits.stanza_bytes_before_login),
    )


def http_rules(config: Config) -> HttpRules:
    """How much a request by HTTP may cost."""
    http = config.http
    return HttpRules(
        http.body_bytes, http.seconds, http.rate, http.burst, http.strangers_rate, http.strangers_burst
    )


def configured_tokens(config: Config) -> Configured:
    """The tokens for HTTP that stand in the configuration."""
    return Configured(
        Token(token.name, bytes.fromhex(token.sha256.value.strip()), frozenset(token.scopes))
        for token in config.http.tokens
    )


def issuers(config: Config) -> list[Any]:
    """Whose JWTs let in by HTTP, each an `xmppd.access.jwts.Issuer`; ConfigError for what cannot be."""
    found, problems = [], []
    for index, it in enumerate(config.http.issuers):
        # What is behind it is loaded where there are some.
        make = importlib.import_module("xmppd.access.jwts").issuer_of
        keys = [key.value.strip() for key in it.keys]
        try:
            named = (it.issuer, it.audience, it.leeway, it.algorithms)
            found.append(make(*named, keys, it.key_files, it.jwks_uri, [*map(str, it.allowed)], it.ca_file))
        except OSError as error:
            message = f"{error.filename}: {error.strerror}"
            problems.append(config.problem(("http", "issuers", index), message))
        except ValueError as error:
            problems.append(config.problem(("http", "issuers", index), str(error)))
    if problems:
        raise ConfigError(problems)
    return found


def wire_rules(config: Config) -> WireRules:
    """How much unsent output a client may cause."""
    limits = config.limits
    return WireRules(limits.write_buffer_soft, limits.write_buffer_hard, limits.unsent_bytes)


def mechanisms(config: Config, accounts: Accounts, hooks: Hooks) -> list[Mechanism]:
    """The SASL mechanisms that the configuration allows."""
    known: list[Mechanism] = [
        *scram_mechanisms(accounts),
        Plain(
            accounts,
            needs_tls=not config.auth.plain_without_tls,
            checks=lambda: hooks.password_check_filter,
        ),
    ]
    chosen = [mechanism for mechanism in known if mechanism.name in config.auth.mechanisms]
    return [*chosen, Anonymous()] if config.auth.anonymous else chosen


def token_rules(config: Config) -> TokenRules:
    """How long tokens of clients last, and how many there are."""
    return TokenRules(config.auth.fast.days * DAY, config.auth.fast.clients_per_account)


def token_mechanisms(config: Config, tokens: TokenSource, *, has_key: bool) -> list[HashedToken]:
    """The mechanisms for tokens; those with channel binding need a key that is not in the store."""
    if not config.auth.fast.days:
        return []
    return [HashedToken(name, tokens) for name, binding in BINDINGS.items() if has_key or not binding]


def hashes(config: Config) -> tuple[str, ...]:
    """Of which hashes keys are made of a password: the usual ones, and what else is offered."""
    offered = {name.removesuffix("-PLUS") for name in config.auth.mechanisms}
    return tuple(name for mechanism, name in ALGORITHMS.items() if name in MADE or mechanism in offered)


def node_name(config: Config) -> str:
    """The name of this node in its cluster, `host:port` of what others connect to; "" without a cluster."""
    cluster = config.cluster
    if cluster.listen is None:
        return ""
    if cluster.advertise is not None:
        return cluster.advertise
    host, port = address_of(cluster.listen, 0)
    return host_and_port(socket.gethostname() if host in EVERYWHERE else host, port)


def plugin_folders(config: Config) -> list[Path]:
    """Where plugins are looked for: the built-in folders, then the operator's."""
    return [*built_in_folders(), *config.plugins.folders]


def built_in_folders() -> list[Path]:
    """Those that come with the server: for all, and for games."""
    return [shipped("plugins"), shipped("plugins") / "game"]
