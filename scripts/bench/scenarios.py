"""What is measured, and the figures to be held: one line for each scenario, shared by `run` and `compare`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

ACCOUNTS, RINGS = 14_000, "0:1000:50,1000:400:200"
"""What is seeded: accounts, and rosters `first:count:contacts` of mutual contacts."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One call of the load generator. `target` bounds ours divided by the better peer's `measure`, or by our
    own of the scenario that it is `against`.
    """

    key: str
    unit: str
    arguments: str
    target: float | None = None
    aim: float | None = None
    measure: str = "cpu"
    """`cpu`: microseconds of the server's CPU per unit; `storm`: the same up to the last stanza that a client
    is sent; `p99`: milliseconds.
    """
    hashed: bool = False
    """Whether all servers keep hashed passwords; they have a work folder of their own then."""
    against: str = ""
    alone: bool = False
    """Whether the peers do not know it, or are not asked for it."""
    cassandra: float | None = None
    """What bounds it with our store in Cassandra; None: it is not measured so."""
    rings: str = RINGS
    """Which rosters there are."""


SCENARIOS = {
    scenario.key: scenario
    for scenario in (
        Scenario("chat", "message", "chat --first 2000 --n 100 --window 4 --warm 2 --dur 5", 0.33, 0.20),
        Scenario(
            "tls-chat",
            "message",
            "chat --first 2000 --n 100 --window 4 --warm 1.5 --dur 5 --tls starttls",
            0.40,
        ),
        Scenario(
            "presence50",
            "copy",
            "presence --first 0 --n 1000 --R 50 --slots 16 --settle 2 --warm 2 --dur 5",
            0.33,
            0.20,
        ),
        Scenario(
            "presence200",
            "copy",
            "presence --first 1000 --n 400 --R 200 --slots 8 --settle 2 --warm 2 --dur 5",
            0.33,
            0.20,
        ),
        Scenario(
            "login-scram",
            "login",
            "login --first 2000 --n 2000 --conc 64 --settle 2 --mech scram-sha-1",
            0.50,
            0.25,
            hashed=True,
        ),
        Scenario("login", "login", "login --first 2000 --n 2000 --conc 64 --settle 2"),
        Scenario("roster200", "get", "roster --first 1000 --n 40 --warm 1.5 --dur 4", 0.33, 0.10),
        Scenario(
            "offline",
            "store",
            "offline --first 3000 --n 40 --to-first 12000 --targets 1000 --verify 20 --warm 1.5 --dur 5",
            0.50,
        ),
        Scenario("storm", "login", "storm --first 0 --n 1000 --settle 2", 0.33),
        Scenario(
            "chat@300",
            "message",
            "chat --first 2000 --n 100 --rate 300 --warm 1.5 --dur 5",
            1.0,
            measure="p99",
        ),
        Scenario(
            "pres50@100",
            "copy",
            "presence --first 0 --n 1000 --R 50 --rate 100 --settle 2 --warm 1.5 --dur 5",
            1.0,
            measure="p99",
        ),
    )
}

OTHERS = {
    scenario.key: scenario
    for scenario in (
        Scenario("tls-login", "login", "login --first 4000 --n 500 --conc 64 --settle 1 --tls starttls"),
        Scenario(
            "muc50", "message", "muc --first 2000 --rooms 4 --occ 50 --slots 8 --settle 1 --warm 2 --dur 5"
        ),
        Scenario(
            "muc500", "message", "muc --first 2000 --rooms 1 --occ 500 --slots 4 --settle 2 --warm 2 --dur 5"
        ),
    )
}
"""Nothing is asked of these yet."""

FIFTY = "0:10000:50"
BACK = "--settle 2 --carbons 1"
STORM = f"storm --first 0 --n 1000 {BACK}"
STORM_10K = f"storm --first 0 --n 10000 {BACK} --max-login 200"


def _storms() -> Iterator[Scenario]:
    """Clients that all come back at once, each with 50 contacts among them: by all that it takes to be where
    they were (RFC 6120 with SCRAM, stream management, carbons, roster, presence), and by what is to cost a
    third of that.
    """
    for suffix, storm, rings in (("", STORM, RINGS), ("10k", STORM_10K, FIFTY)):
        whole = Scenario(
            f"full-storm{suffix}",
            "login",
            f"{storm} --acks 1 --mech scram-sha-1",
            measure="storm",
            hashed=True,
            alone=bool(suffix),
            rings=rings,
        )
        yield whole
        for key, how, asked, alone in (
            ("resume", "--resume 1 --mech scram-sha-1", 0.33, bool(suffix)),
            ("fast", "--acks 1 --mech fast", None, True),
            ("fast-resume", "--resume 1 --mech fast", 0.33, True),
        ):
            yield replace(
                whole,
                key=f"{key}-storm{suffix}",
                arguments=f"{storm} {how}",
                target=asked,
                against=whole.key,
                alone=alone,
            )


HISTORY = {
    scenario.key: scenario
    for scenario in (
        Scenario(
            "archive",
            "message",
            "chat --first 2000 --n 100 --window 4 --warm 2 --dur 5",
            0.20,
            cassandra=0.25,
        ),
        Scenario(
            "mam",
            "page of 50",
            "mam --first 6000 --n 40 --prefill 100 --warm 1.5 --dur 4",
            0.10,
            cassandra=0.15,
        ),
        Scenario(
            "carbons",
            "message to one of 3 devices",
            "chat --first 2200 --n 100 --devices 3 --window 4 --warm 2 --dur 5",
        ),
        Scenario("offline-archived", "store", SCENARIOS["offline"].arguments, 0.50),
        Scenario("login-full", "login", SCENARIOS["login-scram"].arguments, 0.40, hashed=True),
        *_storms(),
    )
}
"""With everything switched on (profile `full`), each message in the archives of both sides on all servers; on
ours it is durable there before it counts as handled.
"""

RICH = Scenario(
    "presence50",
    "copy",
    SCENARIOS["presence50"].arguments.replace("presence ", "presence --rich bench "),
)


@dataclass(frozen=True, slots=True)
class Beside:
    """A scenario in one profile, beside the same (or `base`) in another one; `target` bounds the ratio."""

    key: str
    scenario: Scenario
    profile: str
    target: float
    base: Scenario | None = None
    base_profile: str = "bare"


FEATURES = tuple(
    Beside(f"features-{key}", SCENARIOS[key], "features", 1.15) for key in ("chat", "presence50")
)
"""What a real installation has switched on."""

GAMES = (
    *(Beside(f"layer-{key}", SCENARIOS[key], "layer", 1.25) for key in ("chat", "presence50")),
    *(Beside(f"games-{key}", SCENARIOS[key], "games", 1.25) for key in ("chat", "presence50")),
    Beside("rich-presence50", RICH, "games", 1.3, SCENARIOS["presence50"], "games"),
)
"""The whole layer of games, as config/game.yaml has it and with 100,000 words; and rich presence beside
presence with a status.
"""


@dataclass(frozen=True, slots=True)
class Idle:
    """Idle sessions of 10,000: `target` and `aim` in KiB of PSS each."""

    key: str
    first: int
    target: float
    aim: float
    tls: bool = False
    rings: str = RINGS
    managed: bool = False
    """Whether each has stream management (XEP-0198), with resumption."""


IDLE = {
    idle.key: idle
    for idle in (
        Idle("idle-plain", 2000, 8, 6),
        Idle("idle-plain-roster50", 0, 8, 6, rings=FIFTY),
        Idle("idle-managed", 2000, 9, 7, managed=True),
        Idle("idle-tls", 2000, 26, 22, tls=True),
        Idle("idle-tls-roster50", 0, 26, 22, tls=True, rings=FIFTY),
    )
}


@dataclass(frozen=True, slots=True)
class Tiered:
    """Logins of `accounts` with so many contacts who are away, on each engine."""

    key: str
    contacts: int
    first: int
    accounts: int

    @property
    def ring(self) -> str:
        """What is seeded: each has contacts that nobody else has."""
        return f"{self.first}:{self.accounts}:{self.contacts}:away"

    @property
    def arguments(self) -> str:
        """What the generator does."""
        return f"login --first {self.first} --n {self.accounts} --conc 32 --settle 1 --mech scram-sha-1"

    @property
    def quick(self) -> "Tiered":
        """The same with a fifth of the accounts."""
        return replace(self, accounts=self.accounts // 5)


SQLITE, COLD, WARM = "SQLite", "Cassandra cold", "Cassandra + Redis warm"
TIERS = (SQLITE, COLD, WARM)
"""The server was just started. `cold`: it has no Redis. `warm`: another one has had these accounts before."""

TIERED = {
    tiered.key: tiered for tiered in (Tiered("login50", 50, 0, 1000), Tiered("login200", 200, 1000, 500))
}

IDLE_SESSIONS = 10_000
LEFT_TARGET = 1.20
"""PSS after all left, against that at the start."""

START_TARGET = 1.0
"""Seconds from `xmppd serve` to the first accepted login, with 10,000 accounts."""


def shortened(arguments: str) -> str:
    """The same scenario in its quick form: a second of warming up, two of measuring."""
    words = arguments.split()
    for option, value in (("--warm", "1"), ("--dur", "2"), ("--settle", "1")):
        if option in words:
            words[words.index(option) + 1] = value
    return " ".join(words)
