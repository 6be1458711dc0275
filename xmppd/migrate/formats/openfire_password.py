"""Passwords as Openfire keeps them: SCRAM keys, plain, or encrypted with a key that stands beside them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from xmppd.migrate.keys import from_base64, keys_of
from xmppd.migrate.record import Account, Keys, Losses

try:
    from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
except ImportError:  # before cryptography 43
    from cryptography.hazmat.primitives.ciphers.algorithms import Blowfish

BLOCK: Final = 8
ENOUGH: Final = 100
"""Decrypted passwords that are held against keys: by then the key of encryption is right."""


class Passwords:
    """Takes the passwords of accounts. `key` is the property `passwordKey`, "" for none."""

    def __init__(self, key: str, losses: Losses) -> None:
        self._key, self._losses = key, losses
        self._proved = 0

    def take(self, account: Account, user: Sequence[Any], more: Sequence[Sequence[Any]]) -> None:
        """Of `ofUser` (storedKey, serverKey, salt, iterations, plainPassword, encryptedPassword), and rows of
        `ofUserScram` (mechanism, storedKey, serverKey, salt, iterations).
        """
        stored, server, salt, iterations, plain, encrypted = user
        for _, *row in more:
            self._keys(account, *row)
        if stored or server:
            self._keys(account, stored, server, salt, iterations)
        if plain:
            account.password = str(plain)
        elif encrypted:
            self._encrypted(account, str(encrypted))

    def _keys(self, account: Account, stored: Any, server: Any, salt: Any, iterations: Any) -> None:
        parts = [from_base64(str(part or "")) for part in (stored, server, salt)]
        found = keys_of(parts[0], parts[1], parts[2], iterations)
        if found is None:
            self._losses.add(
                "unusable-keys", account.name, "not two keys of one hash with salt and iterations"
            )
        else:
            account.keys.setdefault(*found)

    def _encrypted(self, account: Account, text: str) -> None:
        password = decrypted(text, self._key) if self._key else None
        if password and self._proved < ENOUGH and account.keys:
            if fits(account.keys, password):
                self._proved += 1
            else:
                password = None
        if password:
            account.password = password
        elif not account.keys:
            why = "it is encrypted, and passwordKey of ofProperty does not decrypt it"
            self._losses.add(
                "unusable-password", account.name, why if self._key else "no passwordKey is there"
            )


def decrypted(text: str, key: str) -> str | None:
    """What `org.jivesoftware.util.Blowfish` encrypted: in hexadecimal digits the IV and CBC blocks, of UTF-16
    padded as by PKCS #5, under the SHA-1 of the key. None where it is none.
    """
    try:
        data = bytes.fromhex(text)
        algorithm = Blowfish(hashlib.sha1(key.encode(), usedforsecurity=False).digest())
        cipher = Cipher(algorithm, modes.CBC(data[:BLOCK])).decryptor()
        plain = cipher.update(data[BLOCK:]) + cipher.finalize()
        if not plain or not 0 < plain[-1] <= BLOCK or set(plain[-plain[-1] :]) != {plain[-1]}:
            return None
        return plain[: -plain[-1]].decode("utf-16-be") or None
    except (ValueError, UnsupportedAlgorithm):
        return None


def fits(keys: dict[str, Keys], password: str) -> bool:
    """Whether the cheapest of these keys is that of a password (RFC 5802 3)."""
    name, kept = min(keys.items(), key=lambda item: item[1].iterations)
    salted = hashlib.pbkdf2_hmac(name, password.encode("utf-8", "replace"), kept.salt, kept.iterations)
    return hmac.digest(salted, b"Server Key", name) == kept.server
