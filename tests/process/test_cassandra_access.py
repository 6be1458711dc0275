"""Cassandra that lets nobody in without TLS, a certificate and a password, as operators should run it."""

import datetime as dt
import ipaddress
import json
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engines import Engines
from engines.node import address_of

pytestmark = pytest.mark.own_engine

NOW = dt.datetime.now(dt.UTC)
FACTORY = "org.apache.cassandra.security.PEMBasedSslContextFactory"
FIRST = {"username": "cassandra", "password": "cassandra"}
"""The role that a new cluster has."""


MAY_SIGN = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """A CA in a folder, and what it signs, as PEM files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = folder / f"{name}.pem"
        signed = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(True, 0), True)
            .add_extension(MAY_SIGN, True)
        )
        self.certificate.write_bytes(self._signed(signed))

    def issue(self, name: str, *addresses: str) -> Path:
        """A file with a key, its certificate, and the CA's."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = self.folder / f"{name}.pem"
        file.write_bytes(secret + self._signed(builder) + self.certificate.read_bytes())
        return file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(days=1))
            .not_valid_after(NOW + dt.timedelta(days=1))
            # RFC 5280 4.2.1.1 and 4.2.1.2: from Python 3.13 on clients insist on both.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.pem`, and `node.pem` and `xmppd.pem` that it signed; the same of another CA."""
    folder = tmp_path_factory.mktemp("papers")
    ours, others = Authority(folder, "ca"), Authority(folder, "stranger")
    ours.issue("node", address_of(0))
    ours.issue("xmppd")
    others.issue("impostor")
    return folder


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, papers: Path) -> Iterator[str]:
    """Host and port of such a node."""
    settings = {
        "authenticator": "PasswordAuthenticator",
        "authorizer": "CassandraAuthorizer",
        "role_manager": "CassandraRoleManager",
        "client_encryption_options": {
            "enabled": True,
            "optional": False,
            "require_client_auth": True,
            "ssl_context_factory": {"class_name": FACTORY},
            "keystore": str(papers / "node.pem"),
            "truststore": str(papers / "ca.pem"),
        },
    }
    engines = Engines(tmp_path_factory.mktemp("guarded"), 1, redis=False, settings=settings, tied=True)
    engines.start()
    try:
        ((host, port),) = engines.contact_points
        wait_for_first_role(host, port, papers)
        yield f"{host}:{port}"
    finally:
        engines.remove()


def wait_for_first_role(host: str, port: int, papers: Path) -> None:
    """It is made a second after the node accepts connections."""
    context = ssl.create_default_context(cafile=papers / "ca.pem")
    context.load_cert_chain(papers / "xmppd.pem")
    end = time.monotonic() + 30
    while True:
        cluster = Cluster(
            [host], port=port, ssl_context=context, auth_provider=PlainTextAuthProvider(**FIRST)
        )
        try:
            cluster.connect()
            return
        except NoHostAvailable:
            assert time.monotonic() < end, "there is no role"
            time.sleep(0.2)
        finally:
            cluster.shutdown()


@pytest.fixture
def store(guarded: str, papers: Path) -> Callable[..., dict[str, Any]]:
    """What the configuration says of the store. None leaves a key of `tls` out; `tls=None` all of it."""

    def store(who: dict[str, str] = FIRST, tls: dict[str, str | None] | None = {}) -> dict[str, Any]:  # noqa: B006
        names = {"ca": "ca.pem", "certificate": "xmppd.pem", "key": "xmppd.pem"}
        cassandra: dict[str, Any] = {"contact_points": [guarded], "connect_timeout": 10, **who}
        if tls is not None:
            files = {key: name for key, name in {**names, **tls}.items() if name is not None}
            cassandra["tls"] = {key: str(papers / name) for key, name in files.items()}
        return {"engine": "cassandra", "cassandra": cassandra}

    return store


@pytest.mark.asyncio
async def test_a_server_with_its_papers_starts_and_stores(prepared, store):
    server = prepared(store=store())
    await server.start()
    server.add("alice")
    alice = await server.login("alice")
    assert (await alice.put_contact("bob@localhost", "Bob")).get("type") == "result"
    assert await alice.roster() == [("bob@localhost", "Bob")]
    await server.stop()


def refused(folder: Path, store: dict[str, Any]) -> tuple[int, str]:
    """The exit code of a server with this store, and the one line that it writes."""
    file = folder / "xmppd.yaml"
    file.write_text(json.dumps({"server": {"data_folder": str(folder / "data")}, "store": store}))
    command = [sys.executable, "-m", "xmppd", "serve", "--config", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.splitlines()
    return done.returncode, line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tls": {"ca": "stranger.pem"}}, "certificate verify failed"),
        ({"tls": {"certificate": None, "key": None}}, "is store.cassandra.tls as it wants?"),
        ({"tls": {"certificate": "impostor.pem", "key": "impostor.pem"}}, "is store.cassandra.tls as it"),
        ({"tls": None}, "is store.cassandra.tls as it wants?"),
        ({"who": {"username": "cassandra", "password": "wrong"}}, "password are incorrect"),
        ({"who": {}}, "requires authentication"),
    ],
)
def test_without_the_right_papers_it_does_not_start_and_says_why(tmp_path, store, options, message):
    code, line = refused(tmp_path, store(**options))
    assert code == 69
    assert line.startswith("xmppd: Cassandra cannot be asked: 127.0.0.11:")
    assert message in line


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ({"ca": "nowhere.pem"}, r"tls.ca: .*/nowhere.pem cannot be used: No such file or directory"),
        ({"key": "node.pem"}, r"tls.certificate: .*/xmppd.pem with .*/node.pem cannot be used: .*MISMATCH"),
    ],
)
def test_files_that_do_not_serve_are_a_mistake_in_the_configuration(tmp_path, store, tls, message):
    code, line = refused(tmp_path, store(tls=tls))
    assert code == 78
    assert re.fullmatch(rf".*xmppd.yaml:1:\d+: store.cassandra.{message}.*", line)
