"""Short hashes by which pieces of accounts are compared with what they were."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """A short hash of what JSON can hold: 80 bits in hexadecimal digits."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return digest_of(data.encode("utf-8", "surrogatepass"))


def digest_of(data: bytes) -> str:
    """The same of a value that is JSON already, without blanks and with sorted keys."""
    return hashlib.blake2b(data, digest_size=10).hexdigest()
