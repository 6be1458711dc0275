"""Certificates as a TLS client sees them, over handshakes in memory."""

import datetime as dt
import hashlib
import ipaddress
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from xmppd.log import tell_ignored
from xmppd.net.certificates import (
    CertificateError,
    Certificates,
    KeyPair,
    development_certificate,
    server_context,
)
from xmppd.net.channel import DomainContext

NOW = 1_900_000_000.0
DAY = 86400


class Handshake:
    """A TLS client and a server joined in memory, step by step."""

    def __init__(
        self, server: ssl.SSLContext, client: ssl.SSLContext | None = None, name: str | None = None
    ) -> None:
        if client is None:
            client = client_context()
        upwards, downwards = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(downwards, upwards, server_hostname=name)
        self.server = server.wrap_bio(upwards, downwards, server_side=True)

    @staticmethod
    def advance(side: ssl.SSLObject) -> bool:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def finish(self) -> "Handshake":
        done = [False, False]
        for _ in range(10):
            done = [self.advance(side) for side in (self.client, self.server)]
            if all(done):
                return self
        raise AssertionError(f"the handshake got stuck: {done}")

    @property
    def presented(self) -> bytes:
        """The certificate that the client got, as DER."""
        der = self.client.getpeercert(binary_form=True)
        assert der
        return der


def client_context(**attributes: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


def write_pair(folder: Path, name: str, key: Any = None, algorithm: Any = hashes.SHA256()) -> KeyPair:  # noqa: B008
    """A self-signed certificate of any kind."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=90))
        .sign(key, algorithm)
    )
    pair = KeyPair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(private_pem(key))
    return pair


def private_pem(key: Any, encryption: Any = serialization.NoEncryption()) -> bytes:  # noqa: B008
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def der(pair: KeyPair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


def bound(done: Handshake) -> bytes:
    """The data of tls-server-end-point."""
    context = done.server.context
    assert isinstance(context, DomainContext)
    return context.end_point


# -------------------------------------------------------------------------------- development


def test_a_client_that_trusts_the_development_certificate_connects(tmp_path: Path) -> None:
    pair = development_certificate(
        tmp_path / "new" / "folder", ["localhost", "Chat.example.org", "bücher.example"]
    )
    server = server_context(*pair)
    for name in ("localhost", "127.0.0.1", "::1", "chat.example.org", "xn--bcher-kva.example"):
        client = ssl.create_default_context(cafile=pair.certificate)
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        Handshake(server, client, name).finish()
    with pytest.raises(ssl.SSLCertVerificationError):
        Handshake(server, ssl.create_default_context(cafile=pair.certificate), "example.com").finish()


def test_the_development_certificate_is_an_elliptic_one_with_a_private_key(tmp_path: Path) -> None:
    pair = development_certificate(tmp_path, ["example.org", "192.0.2.1"])
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)
    assert pair.key.stat().st_mode & 0o777 == 0o600
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.IPAddress(ipaddress.ip_address("192.0.2.1")), x509.DNSName("example.org")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["development.crt", "development.key"]


def test_the_development_certificate_is_kept_while_it_fits(tmp_path: Path) -> None:
    def made(domains: list[str], now: float) -> bytes:
        return development_certificate(tmp_path, domains, now=lambda: now).certificate.read_bytes()

    first = made(["a.example", "b.example"], NOW)
    assert made(["b.example", "A.example", "a.example"], NOW + 357 * DAY) == first
    second = made(["a.example", "b.example"], NOW + 359 * DAY)
    assert second != first
    third = made(["a.example"], NOW + 359 * DAY)
    assert third != second
    assert made(["a.example"], NOW + 359 * DAY) == third


@pytest.mark.parametrize("broken", ["other key", "no key", "garbage"])
def test_development_files_that_do_not_fit_together_are_made_anew(tmp_path: Path, broken: str) -> None:
    pair = development_certificate(tmp_path, ["localhost"])
    match broken:
        case "other key":
            pair.key.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
        case "no key":
            pair.key.unlink()
        case "garbage":
            pair.certificate.write_text("garbage")
    server_context(*development_certificate(tmp_path, ["localhost"]))
    assert pair.key.stat().st_mode & 0o777 == 0o600


# -------------------------------------------------------------------------------- contexts


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_good_versions(tmp_path: Path, version: ssl.TLSVersion) -> None:
    context = Certificates(write_pair(tmp_path, "a")).context
    client = client_context(maximum_version=version)
    done = Handshake(context, client).finish()
    assert done.client.version() == version.name.replace("_", ".")
    # No tickets: not in the handshake of 1.2, and none behind that of 1.3.
    with pytest.raises(ssl.SSLWantReadError):
        done.client.read(1)
    assert done.client.session is None or not done.client.session.has_ticket
    assert done.client.compression() is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(tmp_path: Path, version: ssl.TLSVersion) -> None:
    context = Certificates(write_pair(tmp_path, "a")).context
    client = client_context(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=version)
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
        Handshake(context, client).finish()


def test_tls_1_3_only(tmp_path: Path) -> None:
    context = Certificates(write_pair(tmp_path, "a"), minimum_version=ssl.TLSVersion.TLSv1_3).context
    with pytest.raises(ssl.SSLError):
        Handshake(context, client_context(maximum_version=ssl.TLSVersion.TLSv1_2)).finish()


@pytest.mark.parametrize(
    "ciphers", ["eNULL:aNULL:@SECLEVEL=0", "AES128-SHA", "AES128-GCM-SHA256", "ECDHE+AES+SHA"]
)
def test_weak_ciphers_are_refused(tmp_path: Path, ciphers: str) -> None:
    context = Certificates(write_pair(tmp_path, "a")).context
    client = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
    client.set_ciphers(ciphers)
    with pytest.raises(ssl.SSLError):
        Handshake(context, client).finish()


def test_no_renegotiation(tmp_path: Path) -> None:
    context = Certificates(write_pair(tmp_path, "a")).context
    wanted = ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.options & wanted == wanted


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["xmpp-client"], "xmpp-client"), (["h2"], None), ([], None)]
)
def test_alpn(tmp_path: Path, offered: list[str], chosen: str | None) -> None:
    pair = write_pair(tmp_path, "a")
    for domains in ({}, {"a": pair}):
        client = client_context()
        if offered:
            client.set_alpn_protocols(offered)
        done = Handshake(Certificates(pair, domains).context, client, "a").finish()
        assert done.server.selected_alpn_protocol() == chosen


# -------------------------------------------------------------------------------- domains, reload


def test_each_domain_has_its_certificate_and_its_binding(tmp_path: Path) -> None:
    default, one, two = (write_pair(tmp_path, name) for name in ("default", "one", "two"))
    certificates = Certificates(default, {"one.example": one, "bücher.example": two})
    for name, pair in (
        ("one.example", one),
        ("ONE.example", one),
        ("xn--bcher-kva.example", two),
        ("other.example", default),
        (None, default),
    ):
        done = Handshake(certificates.context, name=name).finish()
        assert done.presented == der(pair)
        assert bound(done) == hashlib.sha256(done.presented).digest()


def test_reload_takes_new_files_and_keeps_old_connections(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, "a")
    certificates = Certificates(pair, {"a": pair})
    old = Handshake(certificates.context, name="a").finish()
    before = der(write_pair(tmp_path, "a"))
    assert Handshake(certificates.context, name="a").finish().presented != before
    certificates.load(pair, {"a": pair})
    new = Handshake(certificates.context, name="a").finish()
    assert new.presented == before
    assert bound(new) == hashlib.sha256(before).digest()
    assert bound(old) == hashlib.sha256(old.presented).digest()
    old.client.write(b"still there")
    assert old.server.read(100) == b"still there"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_binding_is_of_the_certificate_shown_before_a_reload(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    pair = write_pair(tmp_path, "a")
    certificates = Certificates(pair)
    shown = der(pair)
    handshake = Handshake(certificates.context, client_context(maximum_version=version))
    handshake.advance(handshake.client)
    handshake.advance(handshake.server)
    write_pair(tmp_path, "a")
    certificates.load(pair, {})
    handshake.finish()
    assert handshake.presented == shown
    assert bound(handshake) == hashlib.sha256(shown).digest()


def break_nothing_there(pair: KeyPair) -> tuple[Path, str]:
    pair.certificate.unlink()
    return pair.certificate, "No such file"


def break_no_key(pair: KeyPair) -> tuple[Path, str]:
    pair.key.unlink()
    return pair.key, "No such file"


def break_garbage(pair: KeyPair) -> tuple[Path, str]:
    pair.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return pair.certificate, "holds no PEM certificate"


def break_garbage_key(pair: KeyPair) -> tuple[Path, str]:
    pair.key.write_text("garbage")
    return pair.key, "holds no PEM key"


def break_other_key(pair: KeyPair) -> tuple[Path, str]:
    pair.key.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
    return pair.key, "belongs to another certificate"


def break_encrypted_key(pair: KeyPair) -> tuple[Path, str]:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(private_pem(key, serialization.BestAvailableEncryption(b"secret")))
    return pair.key, "is encrypted"


def break_folder(pair: KeyPair) -> tuple[Path, str]:
    pair.certificate.unlink()
    pair.certificate.mkdir()
    return pair.certificate, "directory"


@pytest.mark.parametrize(
    "damage",
    [
        break_nothing_there,
        break_no_key,
        break_garbage,
        break_garbage_key,
        break_other_key,
        break_encrypted_key,
        break_folder,
    ],
)
def test_a_broken_certificate_keeps_the_old_one(
    tmp_path: Path, damage: Callable[[KeyPair], tuple[Path, str]]
) -> None:
    default, other = write_pair(tmp_path, "default"), write_pair(tmp_path, "other")
    certificates = Certificates(default, {"other": other})
    shown = der(default), der(other)
    write_pair(tmp_path, "default")
    file, reason = damage(other)
    with pytest.raises(CertificateError, match=reason) as caught:
        certificates.load(default, {"other": other})
    assert str(file) in str(caught.value)
    assert caught.value.exit_code == 78
    for name, expected in zip(("default", "other"), shown, strict=True):
        assert Handshake(certificates.context, name=name).finish().presented == expected
    with pytest.raises(CertificateError, match=reason):
        Certificates(other)


def test_load_takes_other_domains(tmp_path: Path) -> None:
    default, other = write_pair(tmp_path, "default"), write_pair(tmp_path, "other")
    certificates = Certificates(default)
    assert Handshake(certificates.context, name="other").finish().presented == der(default)
    certificates.load(default, {"other": other})
    assert Handshake(certificates.context, name="other").finish().presented == der(other)


def test_expiries(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, "a")
    expected = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).not_valid_after_utc.timestamp()
    assert Certificates(pair, {"a": pair}).expiries() == {pair.certificate: expected}


def test_a_server_name_that_is_no_ascii_fails_the_handshake_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []

    def hook(found: Any) -> None:
        heard.append(found.object)
        tell_ignored(found)

    monkeypatch.setattr(sys, "unraisablehook", hook)
    pair = write_pair(tmp_path, "a")
    upwards, downwards = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(downwards, upwards, server_hostname="zzzz.example")
    server = Certificates(pair, {"a": pair}).context.wrap_bio(upwards, downwards, server_side=True)
    assert not Handshake.advance(client)
    upwards.write(upwards.read().replace(b"zzzz", b"\xff\x80\xffz"))
    with pytest.raises(ssl.SSLError):
        server.do_handshake()
    assert heard == [b"\xff\x80\xffz.example"]
    assert not caplog.records
