"""What tokens of clients stand on, how they are kept, and the key that is not in the store."""

import os
from pathlib import Path
from typing import Any

import pytest

from xmppd.config import made_of
from xmppd.core.tokens import Kept, basis_of, holds, kept_in
from xmppd.stream.sasl import Tenure
from xmppd.stream.scram import Credentials, ScramKeys
from xmppd.tokenkey import TokenKey

NOW = 1_700_000_000.0
TENURE = Tenure(NOW, 7)


def keys(stored: bytes) -> ScramKeys:
    return ScramKeys(b"salt", 4096, stored, b"server")


BOTH = Credentials({"sha256": keys(b"two"), "sha1": keys(b"one")}, tenure=TENURE)
ONE = Credentials({"sha1": keys(b"one")}, tenure=TENURE)
NONE = Credentials({}, tenure=TENURE)


@pytest.mark.parametrize(
    ("before", "after", "still"),
    [
        (BOTH, BOTH, True),
        (ONE, BOTH, True),
        (BOTH, ONE, False),
        (BOTH, BOTH._replace(keys={"sha256": keys(b"new"), "sha1": keys(b"one")}), False),
        (BOTH, BOTH._replace(tenure=Tenure(NOW, 8)), False),
        (BOTH, BOTH._replace(tenure=Tenure(NOW + 1, 7)), False),
        (NONE, NONE, True),
        (NONE, BOTH, False),
        (NONE, NONE._replace(tenure=Tenure(NOW, 8)), False),
        (BOTH, NONE, False),
        (BOTH._replace(tenure=None), BOTH._replace(tenure=None), True),
    ],
    ids=[
        "the same",
        "keys were made",
        "keys are gone",
        "a new password",
        "sessions had to end",
        "another account",
        "no password",
        "the first password",
        "no password, sessions had to end",
        "no password any more",
        "of unknown age",
    ],
)
def test_what_a_token_stands_on(before: Credentials, after: Credentials, still: bool) -> None:
    assert holds(basis_of(before), after) is still


def test_what_is_kept_comes_back() -> None:
    kept = Kept("HT-SHA-256-NONE", NOW, NOW + 10, bytes(range(32)), b"$:\0")
    assert kept_in(kept.text) == kept
    bound = Kept("HT-SHA-256-EXPR", NOW, NOW + 10, bytes(32), b"")
    assert kept_in(bound.text) == bound
    assert kept_in(None) is None


def configured(folder: Path, **more: Any) -> TokenKey:
    return TokenKey(made_of({"server": {"data_folder": str(folder)}, **more}))


def test_the_key_is_made_once_and_when_it_is_needed(tmp_path: Path) -> None:
    assert configured(tmp_path)(False) is None
    assert [*tmp_path.iterdir()] == []
    key = configured(tmp_path)(True)
    assert key is not None and len(key) == 32
    assert configured(tmp_path)(False) == configured(tmp_path)(True) == key
    assert [file.name for file in tmp_path.iterdir()] == ["token.key"]


def test_a_key_that_somebody_else_made_meanwhile_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def overtaken(source: Path, target: Path) -> None:
        target.write_bytes(b"k" * 32)
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    assert configured(tmp_path)(True) == b"k" * 32
    assert [file.name for file in tmp_path.iterdir()] == ["token.key"]


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_file_that_is_no_key_is_told_of_and_left_alone(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "token.key").write_bytes(content)
    key = configured(tmp_path)
    assert key(True) is None and key(True) is None
    assert [record.message for record in caplog.records] == ["token-key-unavailable"]
    assert (tmp_path / "token.key").read_bytes() == content


def test_several_nodes_have_the_one_of_their_configuration_or_none(tmp_path: Path) -> None:
    cluster = {"cluster": {"listen": "127.0.0.1:5270"}}
    engines = {"cache": {"redis": "redis://127.0.0.1"}, "store": {"engine": "cassandra"}}
    without = configured(tmp_path, **cluster, **engines)
    assert not without.can_be and without(True) is None
    secret = {"auth": {"fast": {"secret": "0123456789abcdef"}}}
    one, other = (
        configured(tmp_path, **secret),
        configured(tmp_path / "other", **secret, **cluster, **engines),
    )
    assert one.can_be and one(False) == other(False) is not None
    assert [*tmp_path.iterdir()] == []
