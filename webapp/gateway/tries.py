"""What a failed attempt means for its request: whether another one can help, and on which replica.

| the replica                          | a retry?             | and then                                         |
| ------------------------------------ | -------------------- | ------------------------------------------------ |
| takes no connection                  | no, nothing was sent | it is unready until a check passes               |
| answers 429 or 503: not now          | no, it did nothing   | it gets nothing for Retry-After, or a second     |
| answers another 4xx                  | never                | the client is told in its words                  |
| answers another 5xx, or stays silent | on another one       | without another, the client is told              |
| loses the connection                 | yes                  | without another, the same one is asked again     |
"""

from __future__ import annotations

from time import monotonic

from inference.exchange import ConnectFailed, Silent, UpstreamError
from inference.pool import Replica
from webapp.gateway.errors import Failed, FromReplica, GatewayError
from webapp.gateway.line import Line

MAX_RETRIES = 2
REFUSAL_S = 1
BUSY = (429, 503)


class Tries:
    """Of one request, which came at `since` (`time.monotonic()`)."""

    def __init__(self, line: Line, since: float) -> None:
        self.avoid: set[Replica] = set()
        self.refusal: FromReplica | None = None
        """The last replica that said it had enough."""
        self._line = line
        self._since = since
        self._retries = 0
        self._unreachable = 0

    def failed(self, replica: Replica, failure: UpstreamError | FromReplica) -> str:
        """The reason to try again. Raises GatewayError, what the client is told, when that can't help."""
        pool = self._line.pool
        if isinstance(failure, ConnectFailed):
            pool.mark_unready(replica)
            self._unreachable += 1
            # The checks find it well and it takes no connection, over and over: that must end too.
            self._retries += self._unreachable > len(pool.replicas)
            reason = "connect"
        elif isinstance(failure, FromReplica) and failure.status in BUSY:
            self.refusal = failure
            self._line.refused(replica, failure.retry_after_s or REFUSAL_S)
            if monotonic() - self._since > self._line.limits.max_wait_s:
                raise failure
            reason = "refused"
        elif isinstance(failure, FromReplica) and failure.status < 500:
            raise failure
        else:
            self.avoid.add(replica)
            self._retries += 1
            reason = "lost"
            if isinstance(failure, Silent | FromReplica):
                reason = "silent" if isinstance(failure, Silent) else "error"
                if pool.pick(self.avoid) in self.avoid:
                    raise _told(failure)
        if self._retries > MAX_RETRIES:
            raise _told(failure) from failure
        return reason


def _told(failure: UpstreamError | FromReplica) -> GatewayError:
    if isinstance(failure, FromReplica):
        return failure
    return Failed(504 if isinstance(failure, Silent) else 502, message=str(failure))
