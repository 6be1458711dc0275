"""What the machine allows, and what is wrong with where the server keeps its files."""

import os
import resource

import pytest

from xmppd.config import made_of
from xmppd.doctor import clocks, machine
from xmppd.doctor.papers import look as papers
from xmppd.net.certificates import development_certificate
from xmppd.store.table import Sounding


@pytest.fixture
def config(tmp_path):
    tmp_path.chmod(0o700)

    def make(**settings):
        return made_of({"server": {"data_folder": str(tmp_path)}, **settings})

    return make


def levels(config, about):
    return [one.level for one in machine.look(config) if one.about == about]


def allow(monkeypatch, descriptors):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (descriptors, descriptors))


def test_descriptors_bound_how_many_clients_there_can_be(config, monkeypatch):
    allow(monkeypatch, 1024)
    assert levels(config(), "descriptors") == ["warning"]
    assert levels(config(limits={"connections": 2000}), "descriptors") == ["error"]
    allow(monkeypatch, 100_000)
    assert levels(config(limits={"connections": 2000}), "descriptors") == ["ok"]


def test_a_folder_that_others_can_look_into(config, tmp_path):
    assert levels(config(), str(tmp_path)) == []
    tmp_path.chmod(0o755)
    assert levels(config(), str(tmp_path)) == ["warning"]


def test_a_folder_that_is_not_there(tmp_path):
    missing = tmp_path / "missing"
    config = made_of({"server": {"data_folder": str(missing)}})
    assert levels(config, str(missing)) == ["error", "error"]


def test_how_much_room_there_is_and_how_long_a_write_takes(config, monkeypatch):
    monkeypatch.setattr(machine, "LITTLE_BYTES", 0)
    monkeypatch.setattr(machine, "LITTLE_SHARE", 0.0)
    monkeypatch.setattr(machine, "SLOW_SYNC_SECONDS", 60.0)
    assert levels(config(), "disk") == ["ok", "ok"]
    monkeypatch.setattr(machine, "LITTLE_BYTES", 1 << 62)
    monkeypatch.setattr(machine, "SLOW_SYNC_SECONDS", 0.0)
    assert levels(config(), "disk") == ["warning", "warning"]
    assert levels(config(store={"engine": "cassandra"}), "disk") == ["warning", "ok"]


def test_a_key_that_everybody_can_read(config, tmp_path):
    pair = development_certificate(tmp_path / "tls", ["example.org"])
    files = {"certificate": str(pair.certificate), "key": str(pair.key)}
    settings = {"tls": {"certificates": {"*": files}}}
    assert levels(config(**settings), "key of *") == []
    pair.key.chmod(0o644)
    assert levels(config(**settings), "key of *") == ["error"]


def test_the_clock_of_the_machine(config, monkeypatch):
    for state, expected in ((5, ["warning"]), (0, ["ok"]), (-1, [])):
        monkeypatch.setattr(machine, "_clock_state", lambda state=state: state)
        assert levels(config(), "clock") == expected


def test_the_kernel_says_how_its_clock_is():
    assert machine._clock_state() in range(-1, 6)


def test_who_the_server_runs_as(config, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert levels(config(), "process") == ["warning"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert levels(config(), "process") == []


@pytest.mark.parametrize(
    ("sounding", "level", "found"),
    [
        (Sounding("SQLite", 0.0004), "ok", "answers in 0.4 ms"),
        (Sounding("Redis", 0.0004, 0.02), "ok", "answers in 0.4 ms, clocks agree to 0.020 s"),
        (Sounding("Redis", 0.2, 0.02), "warning", "answers in 200.0 ms"),
        (Sounding("Redis", 0.0004, -2.5), "warning", "its clock is 2.5 s behind ours"),
        (Sounding("Redis", 3.0, 2.0), "warning", "answers in 3000.0 ms"),
        (Sounding("Cassandra", 0.001, 100.0), "error", "its clock is 100.0 s ahead of ours"),
        (Sounding("Cassandra", problem="no quorum"), "error", "no quorum"),
    ],
)
def test_what_an_answer_of_an_engine_means(sounding, level, found):
    [advice] = clocks.judged([sounding])
    assert (advice.level, advice.found) == (level, found)


# certificates


def test_a_server_with_a_certificate_of_its_own_making(config):
    [advice] = papers(config())
    assert (advice.level, advice.about) == ("warning", "certificates")


def test_certificates_that_do_not_fit_or_were_not_signed(tmp_path):
    pair = development_certificate(tmp_path, ["example.org"])
    files = {"certificate": str(pair.certificate), "key": str(pair.key)}
    config = made_of(
        {"server": {"domains": ["example.org", "example.com"]}, "tls": {"certificates": {"*": files}}}
    )
    first, second = papers(config)
    assert (first.level, first.about) == ("error", "certificate of example.com")
    assert "is for example.org only" in first.found
    assert (second.level, second.about) == ("warning", "certificate of example.org")
    assert second.found.startswith("signed by itself")


def test_a_certificate_that_is_not_there(tmp_path):
    files = {"certificate": str(tmp_path / "none"), "key": str(tmp_path / "none")}
    [advice] = papers(made_of({"tls": {"certificates": {"*": files}}}))
    assert (advice.level, advice.found) == ("error", f"{tmp_path / 'none'}: No such file or directory")
