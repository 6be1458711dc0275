"""SCRAM keys in the spellings of other servers."""

import base64
import hashlib

import pytest

from xmppd.migrate.keys import from_base64, from_hex, keys_of
from xmppd.migrate.record import Keys

SIZES = {"sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}


def raw(name: str, word: bytes) -> bytes:
    return hashlib.new(name, word).digest()


def twice(data: bytes) -> bytes:
    return base64.b64encode(data)


@pytest.mark.parametrize("name", SIZES)
def test_the_length_says_which_hash(name: str) -> None:
    stored, server = raw(name, b"stored"), raw(name, b"server")
    assert keys_of(stored, server, b"salt", 4096) == (name, Keys(b"salt", 4096, stored, server))


@pytest.mark.parametrize("name", SIZES)
def test_base64_of_base64_is_undone_with_the_salt(name: str) -> None:
    stored, server = raw(name, b"stored"), raw(name, b"server")
    found = keys_of(twice(stored), twice(server), twice(b"salt"), "4096")
    assert found == (name, Keys(b"salt", 4096, stored, server))


@pytest.mark.parametrize("iterations", ["10000", 10000, 10000.0, "10000.0"])
def test_iterations_are_numbers_however_written(iterations: object) -> None:
    found = keys_of(bytes(20), bytes(20), b"s", iterations)
    assert found is not None
    assert found[1].iterations == 10000


@pytest.mark.parametrize(
    ("stored", "server", "salt", "iterations"),
    [
        (bytes(20), bytes(32), b"s", 1),
        (bytes(21), bytes(21), b"s", 1),
        (bytes(20), bytes(20), b"", 1),
        (bytes(20), bytes(20), b"s", 0),
        (bytes(20), bytes(20), b"s", "many"),
        (bytes(20), bytes(20), b"s", None),
        (bytes(20), bytes(20), b"s", float("inf")),
        (bytes(20), bytes(20), b"s", 10**12),
        (None, bytes(20), b"s", 1),
        (bytes(20), None, b"s", 1),
        (bytes(20), bytes(20), None, 1),
        (twice(bytes(20)), twice(bytes(32)), twice(b"s"), 1),
        (twice(bytes(20)), twice(bytes(20)), b"!", 1),
    ],
)
def test_anything_else_is_no_key(
    stored: bytes | None, server: bytes | None, salt: bytes | None, iterations: object
) -> None:
    assert keys_of(stored, server, salt, iterations) is None


def test_texts_that_are_none() -> None:
    assert from_base64("a") is None
    assert from_base64("é") is None
    assert from_hex("0g") is None
    assert from_hex("00ff") == b"\x00\xff"
