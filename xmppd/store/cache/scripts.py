"""What runs inside of Redis: each script is one step of the protocol in docs/design/011-roster-cache.md.

Those for rosters take the same three keys, which live in one slot: the value, the lease (the right to set
the value: a reader's, or that of the writer who began last) and the marks (a sorted set: each write under way
by its token, scored with the time, in milliseconds by the server's clock, at which it no longer counts).

A full Redis refuses what needs memory at the first such command of a script, unless something was deleted
before; so marks are set behind a DEL, and the rest is tried by `pcall`. Effects are replicated, not scripts
(Redis 5 and later), so the clock may be read.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Script(NamedTuple):
    """A script, and the name under which Redis knows it."""

    text: str
    sha: str


def _script(text: str) -> Script:
    # The name of a script is a SHA-1 by Redis' rules; nothing is secret here.
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

LEASED, NO_LEASE, MARKED = 1, 0, -1

READ = _script(
    f"""
if ARGV[3] ~= '' then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  {_NOW}
  if redis.call('ZCOUNT', KEYS[3], now, '+inf') > 0 then return {MARKED} end
end
local value = redis.call('GET', KEYS[1])
if value then return value end
local set = redis.pcall('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
if type(set) == 'table' and set.ok then return {LEASED} end
return {NO_LEASE}
"""
)
"""ARGV: token, milliseconds of a lease, channel and notice if the value is bad and must go (else "").
The value, `LEASED`, `NO_LEASE` (another reader has one) or `MARKED` (a write is under way).
"""

FILL = _script(
    """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
local set = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return set.ok and 1 or 0
"""
)
"""ARGV: token, value, milliseconds it lives. 1 if it was set."""

BEGIN = _script(
    f"""
redis.call('DEL', KEYS[1])
{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
"""
)
"""ARGV: token, milliseconds that the mark stands, channel, notice. The value goes: should the writer die,
nobody must see it again.
"""

FINISH = _script(
    f"""
redis.call('ZREM', KEYS[3], ARGV[1])
local is_last = redis.call('GET', KEYS[2]) == ARGV[1]
if is_last then redis.call('DEL', KEYS[2]) end
redis.call('PUBLISH', ARGV[5], ARGV[6])
local version = tonumber(ARGV[2])
if version == 0 then return 0 end
{_NOW}
local is_only = is_last and redis.call('ZCOUNT', KEYS[3], now, '+inf') == 0
local there = tonumber(redis.call('GETRANGE', KEYS[1], 1, 16))
if there and version > 0 and there >= version then return 0 end
if is_only and ARGV[3] ~= '' then
  local set = redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
  if not set.ok then redis.call('DEL', KEYS[1]) end
  return 1
end
if there then redis.call('DEL', KEYS[1]) end
return 0
"""
)
"""ARGV: token, version (0: nothing was written, -1: unknown), value or "", milliseconds it lives, channel,
notice. 1 if this was the last and only write under way: then the roster is the newest one.
"""

RENEW = _script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)
"""Of a lock, with one key. ARGV: token, milliseconds it stands. 1 if it is held by this token."""

RELEASE = _script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
)
"""The same. ARGV: token. 1 if it was held by this token."""
