"""Settings that are each allowed, and dangerous together or where this server stands."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from xmppd.config import Config
from xmppd.doctor.advice import LOOPBACK, Advice, Level
from xmppd.settings import EVERYWHERE, address_of
from xmppd.text import host_and_port

ENOUGH_BITS = 64.0
"""Of a secret: by how many its letters could have been others."""

MAKE_ONE = "openssl rand -hex 32 makes one"


def look(config: Config) -> Iterator[Advice]:
    """All of them, in the order of the file's sections."""
    found = False
    for part in (_listeners, _http, _logins, _strangers, _secrets, _engines, _several, _rest):
        for level, key, text, do in part(config):
            found = True
            yield Advice(level, key, text, do)
    if not found:
        yield Advice("ok", "settings", "nothing dangerous in what is set")


Danger = tuple[Level, str, str, str]


def is_open(address: str) -> bool:
    """Whether others than this machine get to a listener there."""
    if address in EVERYWHERE:
        return True
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address not in LOOPBACK


def _listeners(config: Config) -> Iterator[Danger]:
    for listener in config.listen.c2s:
        if not is_open(listener.address):
            continue
        where = host_and_port(listener.address, listener.port)
        if listener.tls == "none":
            text = f"{where} has no TLS and is open to others than this machine"
            yield (
                "warning",
                "listen.c2s",
                text,
                "only a proxy that does TLS may get to it: bind it to 127.0.0.1",
            )
        elif listener.tls == "starttls" and not config.tls.required:
            text = f"who connects to {where} may go on without TLS, or be made to by whoever is between"
            yield "warning", "tls.required", text, "set it to true"


def _http(config: Config) -> Iterator[Danger]:
    http = config.listen.http
    if http is None or not is_open(http.address):
        return
    where = host_and_port(http.address, http.port)
    text = f"{where} is open to others than this machine, and tokens go there in clear"
    yield "warning", "listen.http", text, "bind it to 127.0.0.1, behind a proxy that has TLS"
    if config.http.metrics == "open":
        yield "note", "http.metrics", f"whoever gets to {where} sees the numbers", "set it to token"


def _logins(config: Config) -> Iterator[Danger]:
    auth = config.auth
    if auth.plain_without_tls and not config.tls.required and "PLAIN" in auth.mechanisms:
        level: Level = "error" if any(is_open(one.address) for one in config.listen.c2s) else "note"
        text = "passwords may come in clear, by a connection without TLS"
        yield level, "auth.plain_without_tls", text, "set tls.required to true, or this to false"
    if not auth.brake.failures_per_account or not auth.brake.failures_per_address:
        text = "a count of 0 lets passwords be guessed without end"
        yield "warning", "auth.brake", text, "leave both as they are by default"
    wide = [network for network in auth.brake.exempt if network.is_global or network.prefixlen == 0]
    if wide:
        text = f"who comes from {', '.join(map(str, wide))} may guess passwords without end"
        yield "warning", "auth.brake.exempt", text, "exempt single machines only"
    if not auth.end_sessions_on_password_change:
        text = "who stole a password stays logged in when it is changed"
        yield "note", "auth.end_sessions_on_password_change", text, "set it to true"
    if set(auth.mechanisms) == {"PLAIN"}:
        text = "the server sees the password of each login"
        yield "note", "auth.mechanisms", text, "allow SCRAM, if no plugin needs PLAIN"


def _strangers(config: Config) -> Iterator[Danger]:
    """Accounts for anybody, and what anybody may cost."""
    limits = config.limits
    register = config.plugins.config.get("register", {})
    registers = "register" in config.plugins.enabled and register.get("registration") is True
    if not registers and not config.auth.anonymous:
        return
    key = "plugins.config.register" if registers else "auth.anonymous"
    who = "anybody can make accounts" if registers else "anybody gets a session"
    if not limits.stanza_rate:
        text = f"{who}, and no session is held to a rate"
        yield "warning", key, text, "set limits.stanza_rate and limits.stanza_burst"
    if not limits.connections_before_login_per_address:
        text = f"{who}, and one address may hold all connections before login"
        yield "note", key, text, "set limits.connections_before_login_per_address"
    if config.iqs.from_strangers == "deliver":
        yield "note", key, f"{who}, and may ask every client things", "set iqs.from_strangers to refuse"


def _secrets(config: Config) -> Iterator[Danger]:
    named = [
        ("cluster.secret", config.cluster.secret),
        ("auth.fast.secret", config.auth.fast.secret),
        ("store.cassandra.password", config.store.cassandra.password),
        *(
            (f"http.issuers[{index}].keys", key)
            for index, issuer in enumerate(config.http.issuers)
            if any(name.startswith("HS") for name in issuer.algorithms)
            for key in issuer.keys
        ),
    ]
    for key, secret in named:
        if secret is not None and (bits := bits_of(secret.value)) < ENOUGH_BITS:
            yield "warning", key, f"can be guessed (about {bits:.0f} bits)", MAKE_ONE


def bits_of(secret: str) -> float:
    """By how many bits its letters could have been others: 0 for one letter repeated. Words look better than
    they are.
    """
    counts = Counter(secret)
    length = len(secret)
    if not length:
        return 0.0
    entropy = -sum(count / length * math.log2(count / length) for count in counts.values())
    half = length // 2
    if length >= 8 and any(secret == (secret[:step] * length)[:length] for step in range(1, half + 1)):
        length = next(step for step in range(1, half + 1) if secret == (secret[:step] * length)[:length])
    return entropy * length


def _engines(config: Config) -> Iterator[Danger]:
    cassandra = config.store.cassandra
    if config.store.engine == "cassandra":
        away = [text for text in cassandra.contact_points if is_open(address_of(text, 9042)[0])]
        if away and cassandra.username is None:
            text = f"{away[0]} is asked without a name and password"
            yield "warning", "store.cassandra.username", text, "let Cassandra authenticate (operations)"
        if away and cassandra.tls is None:
            text = f"what is asked of {away[0]} goes over the net in clear"
            yield "note", "store.cassandra.tls", text, "right in a net of its own only"
        few = [name for name, copies in cassandra.replication.items() if copies < 3]
        if few and away:
            text = f"less than 3 copies in {', '.join(few)}: the loss of one machine stops the service"
            yield "warning", "store.cassandra.replication", text, "3 copies, on 3 machines or more"
    if config.cache.redis is not None:
        parts = urlsplit(config.cache.redis)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        away = [host for host in hosts if host and is_open(host.rpartition(":")[0].strip("[]") or host)]
        if away and not parts.password:
            text = f"{away[0]} is asked without a password: whoever gets to it can be a node"
            yield "warning", "cache.redis", text, "requirepass, and its password in the url"
        if away and not parts.scheme.startswith("rediss"):
            yield "note", "cache.redis", f"what is asked of {away[0]} goes over the net in clear", "rediss://"


def _several(config: Config) -> Iterator[Danger]:
    cluster = config.cluster
    if cluster.listen is None:
        return
    if config.auth.fast.days and config.auth.fast.secret is None:
        text = "nodes have no key in common, so clients get no tokens to log in again"
        yield "note", "auth.fast.secret", text, f"the same on all nodes: {MAKE_ONE}"
    host = address_of(cluster.listen, 0)[0]
    if cluster.carrier == "direct" and not is_open(host):
        text = f"{cluster.listen} can be reached by nodes on this machine only"
        yield "note", "cluster.listen", text, "right for workers; else an address of the net between nodes"


def _rest(config: Config) -> Iterator[Danger]:
    if config.log.level == "debug":
        yield "note", "log.level", "debug is slow, and tells more of users than need be", "set it to info"
    if not config.server.contact.abuse and any(is_open(one.address) for one in config.listen.c2s):
        text = "nobody is told whom to turn to about abuse (XEP-0157)"
        yield "note", "server.contact.abuse", text, "name an address"
    if config.server.drain_seconds < 1:
        text = "a stop gives clients no time to take what is on its way"
        yield "note", "server.drain_seconds", text, "10 s"
