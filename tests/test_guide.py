"""How to log in, as the server says it on a terminal."""

import re

import pytest

from xmppd.config import load
from xmppd.guide import demo_accounts, login_guide

SHOWN = """
  Log in with any XMPP client on this machine:

      server    127.0.0.1, port 6401 (STARTTLS)
      server    ::1, port 6402 (direct TLS)
      account   alice@localhost, password a b
      account   bob@localhost, password c

  The certificate is made by the server itself: let the client trust it when it asks.
  It is HERE/data/development.crt.

  For example with go-sendxmpp (apt-get install go-sendxmpp), in another terminal:

      echo Hello | SSL_CERT_FILE=HERE/data/development.crt \\
        go-sendxmpp -u alice@localhost -p 'a b' -j localhost:6401 bob@localhost

  Or in profanity (apt-get install profanity), which asks for the password:

      /connect alice@localhost server localhost port 6401 tls trust

  Everything is kept in HERE/data. Ctrl-C stops the server.

"""


@pytest.fixture
def loaded(tmp_path):
    def make(text):
        path = tmp_path / "xmppd.yaml"
        path.write_text(text.replace("HERE", str(tmp_path)))
        return load(path, {})

    return make


def test_everything_that_is_needed(loaded, tmp_path):
    config = loaded(
        "server: {data_folder: HERE/data}\n"
        "listen: {c2s: [{port: 0}, {address: '::1', port: 6402, tls: direct}]}\n"
    )
    assert demo_accounts(config) == {}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo-accounts").write_text("alice@localhost a b\nbob@localhost c\nspoilt\n")
    accounts = demo_accounts(config)
    assert accounts == {"alice@localhost": "a b", "bob@localhost": "c"}
    assert login_guide(config, [6401, 6402], accounts).replace(str(tmp_path), "HERE") == SHOWN


def test_a_server_for_the_world(loaded):
    config = loaded(
        "server: {domains: [chat.example], data_folder: HERE}\n"
        "listen: {c2s: [{address: 0.0.0.0, port: 5222}]}\n"
        "tls: {certificates: {'*': {certificate: HERE/c, key: HERE/k}}}\n"
    )
    text = login_guide(config, [5222], {})
    assert "Log in with any XMPP client:\n" in text
    assert "server    any address of this machine, port 5222 (STARTTLS)\n" in text
    assert "make one by: xmppd user add NAME@chat.example\n" in text
    assert "certificate" not in text
    assert "/connect" not in text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("0.0.0.0", "localhost"),
        ("'::1'", "localhost"),
        ("127.0.0.2", "127.0.0.2"),
    ],
)
def test_the_example_works_wherever_it_listens_and_lies(loaded, address, shown):
    config = loaded(
        f"server: {{data_folder: HERE/my data}}\nlisten: {{c2s: [{{address: {address}, port: 6401}}]}}\n"
    )
    text = login_guide(config, [6401], {"alice@localhost": "a", "bob@localhost": "b"})
    assert f" -j {shown}:6401 bob" in text
    assert f" server {shown} port 6401 " in text
    assert re.search("SSL_CERT_FILE='/.*/my data/development.crt' ", text)
