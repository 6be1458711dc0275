"""Settings that are dangerous together are found, and those that are by default are not."""

import pytest

from xmppd.config import made_of
from xmppd.doctor.dangers import bits_of, is_open, look


def found(**settings):
    return {(one.level, one.about) for one in look(made_of(settings))}


OPEN = {"address": "0.0.0.0", "port": 5222}
CONTACT = {"contact": {"abuse": ["mailto:abuse@example.org"]}}
ISSUER = {"issuer": "us", "audience": "chat", "algorithms": ["HS256"]}


def test_the_defaults_are_safe():
    [advice] = look(made_of({}))
    assert (advice.level, advice.found) == ("ok", "nothing dangerous in what is set")


def test_nor_is_a_usual_public_server_dangerous():
    settings = {"server": CONTACT, "listen": {"c2s": [OPEN]}}
    assert found(**settings) == {("ok", "settings")}


DANGERS = {
    "no TLS": ({"listen": {"c2s": [{**OPEN, "tls": "none"}]}}, ("warning", "listen.c2s")),
    "TLS as one likes": (
        {"listen": {"c2s": [OPEN]}, "tls": {"required": False}},
        ("warning", "tls.required"),
    ),
    "passwords in clear": (
        {"listen": {"c2s": [OPEN]}, "tls": {"required": False}, "auth": {"plain_without_tls": True}},
        ("error", "auth.plain_without_tls"),
    ),
    "in clear on this machine": (
        {"tls": {"required": False}, "auth": {"plain_without_tls": True}},
        ("note", "auth.plain_without_tls"),
    ),
    "HTTP for all": ({"listen": {"http": {"address": "::", "port": 8080}}}, ("warning", "listen.http")),
    "numbers for all": (
        {"listen": {"http": {"address": "::", "port": 8080}}, "http": {"metrics": "open"}},
        ("note", "http.metrics"),
    ),
    "no brake": ({"auth": {"brake": {"failures_per_account": 0}}}, ("warning", "auth.brake")),
    "a wide exemption": ({"auth": {"brake": {"exempt": ["0.0.0.0/0"]}}}, ("warning", "auth.brake.exempt")),
    "stolen sessions": (
        {"auth": {"end_sessions_on_password_change": False}},
        ("note", "auth.end_sessions_on_password_change"),
    ),
    "accounts for all": (
        {"plugins": {"config": {"register": {"registration": True}}}},
        ("warning", "plugins.config.register"),
    ),
    "guests": ({"auth": {"anonymous": True}}, ("warning", "auth.anonymous")),
    "a weak secret": (
        {"auth": {"fast": {"secret": "aaaaaaaaaaaaaaaaaaaa"}}},
        ("warning", "auth.fast.secret"),
    ),
    "a weak key": (
        {"http": {"issuers": [{**ISSUER, "keys": ["abcdabcdabcdabcdabcdabcdabcdabcdabcd"]}]}},
        ("warning", "http.issuers[0].keys"),
    ),
    "Cassandra without a name": (
        {"store": {"engine": "cassandra", "cassandra": {"contact_points": ["10.0.0.1"]}}},
        ("warning", "store.cassandra.username"),
    ),
    "few copies": (
        {
            "store": {
                "engine": "cassandra",
                "cassandra": {"contact_points": ["10.0.0.1"], "replication": {"datacenter1": 1}},
            }
        },
        ("warning", "store.cassandra.replication"),
    ),
    "Redis without a password": ({"cache": {"redis": "redis://10.0.0.1:6379/0"}}, ("warning", "cache.redis")),
    "a talkative log": ({"log": {"level": "debug"}}, ("note", "log.level")),
    "nobody to turn to": ({"listen": {"c2s": [OPEN]}}, ("note", "server.contact.abuse")),
}


@pytest.mark.parametrize(("settings", "expected"), DANGERS.values(), ids=DANGERS)
def test_each_danger_is_found(settings, expected):
    assert expected in found(**settings)


CURES = {
    "accounts for all, at a rate": {
        "plugins": {"config": {"register": {"registration": True}}},
        "limits": {"stanza_rate": 20, "connections_before_login_per_address": 20},
        "iqs": {"from_strangers": "refuse"},
    },
    "Redis with a password": {"cache": {"redis": "rediss://:geheim@10.0.0.1:6379/0"}},
    "Redis here": {"cache": {"redis": "redis://127.0.0.1:6379/0"}},
    "Redis by a socket": {"cache": {"redis": "unix:///run/redis.sock"}},
    "a good secret": {"auth": {"fast": {"secret": "3f9c1db07e52a84410cd6b7e95f2a83c"}}},
}


@pytest.mark.parametrize("settings", CURES.values(), ids=CURES)
def test_what_it_advises_is_taken_for_good(settings):
    assert found(**settings) == {("ok", "settings")}


@pytest.mark.parametrize(
    ("secret", "is_enough"),
    [
        ("", False),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", False),
        ("abcdefghabcdefghabcdefghabcdefgh", False),
        ("secretsecretsecretsecret", False),
        ("correct-horse", False),
        ("3f9c1db07e52a84410cd6b7e95f2a83c", True),
        ("kT9$wq2!mZ7@pL4#xR8&", True),
    ],
)
def test_how_much_there_is_to_guess(secret, is_enough):
    assert (bits_of(secret) >= 64) is is_enough


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("10.0.0.1", True),
    ],
)
def test_who_gets_to_an_address(address, expected):
    assert is_open(address) is expected
