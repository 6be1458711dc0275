"""What can be configured: one frozen model for each section of `config/xmppd.yaml`, which explains every key.

Every key has a default, so an empty file is a working configuration. Times are seconds, sizes are bytes.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from xmppd.configfile import DATA_FOLDER
from xmppd.jid import Jid
from xmppd.section import (
    Beside,
    NonNegativeFloat,
    NonNegativeInt,
    Parsed,
    PositiveFloat,
    PositiveInt,
    SecretText,
    Section,
    at_least,
    at_most,
    matching,
    more_than,
    not_below,
    some,
    unique,
)

Port = Annotated[int, at_least(0), at_most(65535)]
Count = NonNegativeInt
Size = PositiveInt
Seconds = NonNegativeFloat

Mechanism = Literal[
    "SCRAM-SHA-512-PLUS",
    "SCRAM-SHA-512",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-1",
    "PLAIN",
]
"""The SASL mechanisms of the server itself; ANONYMOUS has a switch of its own, plugins bring theirs."""


SignatureAlgorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "HS256",
    "HS384",
    "HS512",
]
"""How tokens of issuers are signed (RFC 7518 3.1, RFC 8037)."""


def _domain(text: str) -> str:
    jid = Jid.parse(text)
    if jid.local or jid.resource:
        raise ValueError("must be a host name, not a whole address")
    return jid.domain


def _label(text: str) -> str:
    if "." in text or _domain(text) != text:
        raise ValueError("must be one label of a host name, in lower case")
    return text


def _domain_or_any(text: str) -> str:
    return text if text == "*" else _domain(text)


def _listening(text: str) -> str:
    """The address of a listener: an IPv6 address may be in brackets."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(bare))
    except ValueError:
        pass
    if text == "*":
        raise ValueError('must be an address: 0.0.0.0 and "::" stand for all there are')
    if bare != text or ":" in text or not _HOST_NAME.fullmatch(text) or re.fullmatch(r"[0-9.]+", text):
        raise ValueError("must be an IP address or a host name, without a port (that is a key of its own)")
    return text


def _file(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("must be the name of a file")
    return path


def _not_here(path: Path) -> Path:
    if path == Path():
        raise ValueError("must be the name of a folder")
    return path


def _host_and_port(text: str) -> str:
    address_of(text, 0)
    return text


def address_of(text: str, port: int) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[v6 address]:port`; ValueError."""
    host, colon, number = text.rpartition(":")
    if (text.startswith("[") and text.endswith("]")) or not colon:
        host, number = text, ""
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or ("[" in host) != (":" in bare) or (colon and number and not number.isdigit()):
        raise ValueError("must be a host, host:port or [IPv6 address]:port")
    if number and not 0 < int(number) < 65536:
        raise ValueError("must have a port from 1 to 65535")
    return bare, int(number) if number else port


def _trunk_listener(text: str) -> str:
    host = _host_of(text)
    try:
        _listening(host)
    except ValueError:
        raise ValueError("must be an IP address or a host name, with a port behind it") from None
    return text


def _reachable(text: str) -> str:
    if (host := _host_of(text)) in EVERYWHERE:
        raise ValueError(
            f"must be an address that the other nodes can reach: {host} stands for all there are"
        )
    return text


def _other_host(text: str) -> str:
    """As RFC 6120 4.9.3.19 has it."""
    host, _ = address_of(text, 5222)
    if host in EVERYWHERE:
        raise ValueError(f"must be an address that clients can reach: {host} stands for all there are")
    return text


def _host_of(text: str) -> str:
    host, port = address_of(text, 0)
    if not port:
        raise ValueError("must have a port: host:port or [IPv6 address]:port")
    return host


def _long(secret: SecretText | None) -> SecretText | None:
    if secret is not None and len(secret.value) < SECRET_LENGTH:
        raise ValueError(f"must have {SECRET_LENGTH} or more characters (openssl rand -hex 32 makes some)")
    return secret


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// url")
    return text


def _redis_url(text: str) -> str:
    parts = urlsplit(text)
    scheme, _, kind = parts.scheme.partition("+")
    if parts.scheme == "unix" and parts.path:
        return text
    if scheme not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster") or not parts.netloc:
        raise ValueError("must be a redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// url")
    if kind == "sentinel" and not parts.path.strip("/"):
        raise ValueError("must name the service behind the sentinels: redis+sentinel://host:port/service")
    for host in parts.netloc.rpartition("@")[2].split(","):
        if not re.fullmatch(r"([^:\[\]\s]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", host):
            raise ValueError(f"must hold host:port, not {host!r}")
    return text


EVERYWHERE = frozenset({"0.0.0.0", "::"})
"""The addresses of a listener at all there are."""

SECRET_LENGTH = 16
"""Characters that a secret of nodes, or of tokens, has at least."""

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")

Network = Annotated[IPv4Network | IPv6Network, Parsed(ip_network)]
RedisUrl = Annotated[str, _redis_url]
Domain = Annotated[str, _domain]
File = Annotated[Path, _file]
ListenAddress = Annotated[str, some, _listening]
ContactAddress = Annotated[str, matching(r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$")]
"""A URI: mailto:, xmpp: or https:."""


class ContactConfig(Section):
    """Whom to turn to, shown by service discovery (XEP-0157): lists of URIs."""

    abuse: tuple[ContactAddress, ...] = ()
    admin: tuple[ContactAddress, ...] = ()
    feedback: tuple[ContactAddress, ...] = ()
    sales: tuple[ContactAddress, ...] = ()
    security: tuple[ContactAddress, ...] = ()
    status: tuple[ContactAddress, ...] = ()
    support: tuple[ContactAddress, ...] = ()


class ServerConfig(Section):
    """Who this server is, and where it keeps its files."""

    domains: Annotated[tuple[Domain, ...], some, unique] = ("localhost",)
    data_folder: Annotated[File, _not_here] = DATA_FOLDER
    name: Annotated[str, matching(r"^[^\x00-\x1f\x7f\ufffe\uffff]*$")] = "xmppd"
    language: Annotated[str, matching(r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$")] = "en"
    contact: ContactConfig = ContactConfig()
    drain_seconds: Seconds = 10.0


class ListenerConfig(Section):
    """One address and port for clients. Port 0 takes any free one; `tls: none` is for proxies that do TLS."""

    address: ListenAddress = "127.0.0.1"
    port: Port
    tls: Literal["starttls", "direct", "none"] = "starttls"


class HttpListenerConfig(Section):
    """Where the server's own HTTP is; without TLS, so only for this machine or behind a proxy that has it.
    `own_port`: one more, at which only this process answers; of workers the first one's.
    """

    address: ListenAddress = "127.0.0.1"
    port: Port
    own_port: Port | None = None


class ListenConfig(Section):
    """The doors of the server."""

    c2s: tuple[ListenerConfig, ...] = (
        ListenerConfig(port=5222),
        ListenerConfig(port=5223, tls="direct"),
    )
    http: HttpListenerConfig | None = None
    backlog: Annotated[int, at_least(1), at_most(65_535)] = 1024
    reuse_port: bool = False


def _sha256(secret: SecretText) -> SecretText:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", secret.value.strip()):
        raise ValueError("must be the 64 hexadecimal digits of a SHA-256")
    return secret


class HttpTokenConfig(Section):
    """Who may call by HTTP: the SHA-256 of a bearer token, and the scopes it has ("*": all)."""

    name: Annotated[str, matching(r"^[A-Za-z0-9_.@-]{1,64}$")]
    sha256: Annotated[SecretText, _sha256]
    scopes: tuple[Annotated[str, matching(r"^[a-z0-9_.:*-]+$")], ...]


def _different(tokens: tuple[HttpTokenConfig, ...]) -> tuple[HttpTokenConfig, ...]:
    unique(tuple(token.name for token in tokens))
    if len({token.sha256.value.strip().lower() for token in tokens}) < len(tokens):
        raise ValueError("has one token twice")
    return tokens


class IssuerConfig(Section):
    """Whose tokens (JWT) let in by HTTP: for which audience, signed by which keys in which ways. Keys are
    those named here, and those of the JWK Set at `jwks_uri`, on a public address or in `allowed` networks.
    """

    issuer: Annotated[str, some]
    audience: Annotated[str, some]
    keys: tuple[SecretText, ...] = ()
    key_files: tuple[File, ...] = ()
    jwks_uri: str = ""
    allowed: tuple[Network, ...] = ()
    ca_file: str = ""
    algorithms: Annotated[tuple[SignatureAlgorithm, ...], some, unique]
    leeway: Annotated[float, at_least(0), at_most(300)] = 30.0


class HttpConfig(Section):
    """Bounds of the server's own HTTP, and who may call. `metrics`: who may see numbers at /metrics."""

    tokens: Annotated[tuple[HttpTokenConfig, ...], _different] = ()
    issuers: tuple[IssuerConfig, ...] = ()
    metrics: Literal["auto", "open", "token"] = "auto"
    connections: Size = 256
    body_bytes: Size = 1_048_576
    seconds: PositiveFloat = 30.0
    rate: NonNegativeFloat = 500.0
    burst: Size = 1_000
    strangers_rate: NonNegativeFloat = 10.0
    strangers_burst: Size = 200


class AuditConfig(Section):
    """The log of what was done by commands."""

    days: Annotated[float, at_least(1), at_most(3650)] = 90.0


class RightsConfig(Section):
    """What becomes of names of accounts that were erased, or renamed."""

    erased_days: Annotated[float, at_least(0), at_most(36500)] = 365.0
    moved_days: Annotated[float, at_least(0), at_most(36500)] = 90.0


class CertificateConfig(Section):
    """PEM files: the chain, own certificate first, and its private key."""

    certificate: File
    key: File


class TlsConfig(Section):
    """Encryption of client connections. Without certificates the server makes one for development."""

    required: bool = True
    certificates: Mapping[Annotated[str, _domain_or_any], CertificateConfig] = {}
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    ciphers: Annotated[str, some] | None = None


class BrakeConfig(Section):
    """How who guesses passwords is slowed down. Counts of failures that cost nothing (0: none ever does)."""

    failures_per_account: Count = 3
    failures_per_address: Count = 20
    longest_seconds: Annotated[float, more_than(0), at_most(20)] = 10.0
    forget_seconds: PositiveFloat = 900.0
    exempt: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class FastConfig(Section):
    """Tokens by which clients log in again. 0 days: there are none."""

    days: Annotated[float, at_least(0), at_most(365)] = 21.0
    clients_per_account: Size = 20
    secret: Annotated[SecretText | None, _long] = None


class AuthConfig(Section):
    """How clients log in."""

    mechanisms: Annotated[tuple[Mechanism, ...], some, unique] = (
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-1",
        "PLAIN",
    )
    plain_without_tls: bool = False
    anonymous: bool = False
    iterations: Annotated[int, at_least(4096), at_most(10_000_000)] = 10_000
    attempts: Size = 5
    login_seconds: PositiveFloat = 30.0
    end_sessions_on_password_change: bool = True
    expiry_grace: Seconds = 30.0
    brake: BrakeConfig = BrakeConfig()
    fast: FastConfig = FastConfig()


class LimitsConfig(Section):
    """Bounds on what one client may cost; 0 means no limit where `config/xmppd.yaml` says so."""

    stanza_bytes_before_login: Annotated[int, at_least(10_000)] = 10_000
    stanza_bytes: Annotated[int, at_least(10_000), not_below("stanza_bytes_before_login")] = 262_144
    header_bytes: Annotated[int, at_least(512)] = 4_096
    depth: Annotated[int, at_least(8)] = 64
    attributes: Annotated[int, at_least(8)] = 64
    connections: Count = 0
    connections_before_login: Count = 1_000
    connections_before_login_per_address: Count = 0
    sessions_per_account: Size = 10
    detached_per_account: Size = 3
    unacked_stanzas: Size = 1_000
    unacked_bytes: Size = 1_048_576
    unacked_bytes_of_all: Annotated[Size, not_below("unacked_bytes")] = 268_435_456
    roster_items: Size = 1_000
    roster_bytes: Size = 262_144
    roster_groups_per_item: Count = 10
    name_bytes: Size = 1_023
    block_items: Size = 1_000
    block_bytes: Size = 65_536
    presence_bytes: Annotated[int, at_least(1_024)] = 16_384
    write_buffer_soft: Size = 131_072
    write_buffer_hard: Annotated[Size, not_below("write_buffer_soft")] = 4_194_304
    unsent_bytes: Annotated[Size, not_below("write_buffer_hard")] = 268_435_456
    loop_share: Annotated[float, at_least(0.01), at_most(1)] = 0.25
    stanza_rate: NonNegativeFloat = 0.0
    stanza_burst: Size = 100
    presence_copy_rate: NonNegativeFloat = 5_000.0
    presence_copy_burst: Size = 10_000


class SessionsConfig(Section):
    """The life of bound sessions. Seconds of silence; 0 turns a step off."""

    conflict: Literal["replace", "rename"] = "replace"
    whitespace_after: Seconds = 60.0
    ping_after: Seconds = 180.0
    ping_timeout: PositiveFloat = 60.0
    client_state: bool = True
    resume_seconds: Seconds = 300.0
    resume_seconds_at_most: Annotated[Seconds, not_below("resume_seconds")] = 600.0
    resume_location: Annotated[str, _other_host] | None = None


class IqsConfig(Section):
    """Requests between accounts."""

    from_strangers: Literal["deliver", "refuse"] = "deliver"


class RostersConfig(Section):
    """Contact lists; the bounds of one are in `limits`."""

    log_days: Annotated[float, at_least(0), at_most(3650)] = 90.0


def _with_class(options: Mapping[str, str]) -> Mapping[str, str]:
    if "class" not in options:
        raise ValueError("must name its class")
    return options


Compaction = Annotated[Mapping[str, str], _with_class]
"""Options of a compaction strategy as CQL has them, `class` among them."""


def _with_user(password: SecretText | None, before: Mapping[str, Any]) -> SecretText | None:
    if password and before.get("username", "") is None:
        raise ValueError("needs the username it belongs to")
    if password is None and before.get("username") is not None:
        raise ValueError("is missing beside username")
    return password


def _with_certificate(key: Path | None, before: Mapping[str, Any]) -> Path | None:
    if key is not None and before.get("certificate") is None:
        raise ValueError("needs the certificate it belongs to")
    return key


class CassandraTlsConfig(Section):
    """Encryption between the server and Cassandra. PEM files; without `ca` those the system trusts."""

    ca: File | None = None
    certificate: File | None = None
    key: Annotated[File | None, Beside(_with_certificate)] = None
    check_host_name: bool = True


class CompactionConfig(Section):
    """How Cassandra merges the files of a table that is made: of one by name, of those whose rows end by
    themselves, of all others.
    """

    lasting: Compaction | None = None
    expiring: Compaction | None = None
    tables: Mapping[str, Compaction] = {}


class CassandraConfig(Section):
    """A cluster of Cassandra. `replication` is data centre -> copies, for a keyspace that is to be made."""

    contact_points: Annotated[tuple[Annotated[str, _host_and_port], ...], some, unique] = ("127.0.0.1:9042",)
    keyspace: Annotated[str, matching(r"^[a-z][a-z0-9_]{0,47}$")] = "xmppd"
    local_dc: Annotated[str, matching(r"^[A-Za-z0-9_-]+$")] = "datacenter1"
    replication: Mapping[Annotated[str, matching(r"^[A-Za-z0-9_-]+$")], Size] = {}
    username: str | None = None
    password: Annotated[SecretText | None, Beside(_with_user)] = None
    tls: CassandraTlsConfig | None = None
    connect_timeout: PositiveFloat = 5.0
    request_timeout: PositiveFloat = 5.0
    in_flight: Annotated[int, at_least(1), at_most(16384)] = 512
    waiting: Count = 4096
    compaction: CompactionConfig = CompactionConfig()
    migrate: Literal["auto", "check"] = "auto"


class StoreConfig(Section):
    """Where the truth is kept. `path`, of SQLite, defaults to `xmppd.sqlite` in the data folder."""

    engine: Literal["sqlite", "cassandra"] = "sqlite"
    path: File | None = None
    cassandra: CassandraConfig = CassandraConfig()


class CacheConfig(Section):
    """The cache that all nodes share. Without `redis` there is none, and one node only."""

    redis: RedisUrl | None = None
    prefix: Annotated[str, matching(r"^[A-Za-z0-9_.:-]{1,64}$")] = "xmppd"
    ttl: Annotated[float, at_least(10)] = 3_600.0
    timeout: Annotated[float, more_than(0), at_most(5)] = 0.1
    connect_timeout: Annotated[float, more_than(0), at_most(30)] = 1.0
    loads: Size = 32
    memory: Size = 67_108_864


class ClusterConfig(Section):
    """How this node and others find and reach each other. Without `listen` it is the only one."""

    listen: Annotated[str, _trunk_listener] | None = None
    advertise: Annotated[str, _reachable] | None = None
    secret: Annotated[SecretText | None, _long] = None
    seeds: Annotated[tuple[Annotated[str, _reachable], ...], unique] = ()
    carrier: Literal["direct", "redis"] = "direct"
    grace: Seconds = 60.0
    unix: bool = False
    see_other_host: Annotated[str, _other_host] | None = None


class PluginsConfig(Section):
    """What is loaded, from where, and what each plugin was told; plugins check their own keys of `config`."""

    folders: tuple[File, ...] = ()
    enabled: Annotated[tuple[str, ...], unique] = (
        "disco",
        "ping",
        "version",
        "time",
        "last",
        "vcard",
        "private",
        "blocking",
        "privacy",
        "offline",
        "carbons",
        "announce",
        "adhoc",
        "register",
    )
    config: Mapping[str, Mapping[str, Any]] = {}
    hosts: Mapping[str, Annotated[str, _label]] = {}


class LogConfig(Section):
    """What is logged, and how: text on a terminal and JSON lines otherwise, unless told."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class TracingConfig(Section):
    """Spans of what is slow: the URL that takes them by OTLP (None: there are none), what part of them is
    recorded, as whose, and whether with names of accounts.
    """

    endpoint: Annotated[str, _http_url] | None = None
    ratio: Annotated[float, at_least(0), at_most(1)] = 1.0
    service_name: Annotated[str, some] = "xmppd"
    accounts: bool = False


class LoopConfig(Section):
    """The event loop."""

    uvloop: bool = True
