"""What a key may still use: requests and tokens a minute, counted in this process alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from math import ceil

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from inference.asgi import Headers
from webapp.gateway.errors import OverQuota
from webapp.gateway.keys import Key
from webapp.gateway.record import Record


class Quota:
    """A window begins with a key's first use and ends a minute later; `clock` gives seconds.

    Windows are fixed because tokens are charged when an answer ends, however many they are; the library's sliding
    windows refuse to count what does not fit.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._limiter = FixedWindowRateLimiter(Windows(clock))
        self._tokens: dict[str, RateLimitItem] = {}  # by the key's name, for `charge`

    def admit(self, key: Key) -> None:
        """Count a request. Raises OverQuota when it is one too many, or the tokens are used up."""
        if tokens := _tokens(key):
            self._tokens[key.name] = tokens
            if not self._limiter.test(tokens, key.name):
                raise self._over(tokens, key, "tokens")
        else:
            self._tokens.pop(key.name, None)
        if (requests := _requests(key)) and not self._limiter.hit(requests, key.name):
            raise self._over(requests, key, "requests")

    def charge(self, record: Record) -> None:
        """Take what a request has used off its key's tokens. One of the gateway's `on_end`."""
        used = record.prompt_tokens + record.completion_tokens
        if used and record.key is not None and (item := self._tokens.get(record.key)):
            self._limiter.hit(item, record.key, cost=used)

    def marks(self, key: Key) -> Headers:
        """What is left, in OpenAI's headers."""
        marks: Headers = []
        for kind, item in ((b"requests", _requests(key)), (b"tokens", _tokens(key))):
            if item is not None:
                window = self._limiter.get_window_stats(item, key.name)
                marks += [
                    (b"x-ratelimit-limit-" + kind, b"%d" % item.amount),
                    (b"x-ratelimit-remaining-" + kind, b"%d" % window.remaining),
                    (b"x-ratelimit-reset-" + kind, b"%ds" % self._seconds_to(window.reset_time)),
                ]
        return marks

    def _over(self, item: RateLimitItem, key: Key, kind: str) -> OverQuota:
        wait_s = max(1, self._seconds_to(self._limiter.get_window_stats(item, key.name).reset_time))
        return OverQuota(f"the API key {key.name!r} may use {item.amount} {kind} a minute; wait {wait_s} s", wait_s)

    def _seconds_to(self, at: float) -> int:
        return max(0, ceil(at - self._clock()))


class Windows(Storage):
    """Counts in memory for `limits`. Its own MemoryStorage starts a thread at most hits, 50 µs each, to drop counts
    that have expired; here there are but two for each key."""

    STORAGE_SCHEME = None
    base_exceptions = ()

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[str, tuple[int, float]] = {}  # count, end

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = self._clock()
        count, end = self._windows.get(key, (0, now))
        if end <= now:
            count, end = 0, now + expiry
        self._windows[key] = (count + amount, end)
        return count + amount

    def get(self, key: str) -> int:
        count, end = self._windows.get(key, (0, 0.0))
        return count if end > self._clock() else 0

    def get_expiry(self, key: str) -> float:
        return self._windows.get(key, (0, self._clock()))[1]

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)


class _PerMinute(RateLimitItemPerMinute):
    """The library puts the name of a window together anew six times for each request."""

    key_for = lru_cache(maxsize=4096)(RateLimitItemPerMinute.key_for)


def _requests(key: Key) -> RateLimitItem | None:
    return _per_minute("requests", key.requests_per_minute)


def _tokens(key: Key) -> RateLimitItem | None:
    return _per_minute("tokens", key.tokens_per_minute)


@lru_cache(maxsize=1024)
def _per_minute(kind: str, amount: int | None) -> RateLimitItem | None:
    return None if amount is None else _PerMinute(amount, namespace=kind)
