"""Whether a run may be believed, and what it says: pass, fail, invalid or stopped. Pure.

`stopped` comes first: what ran is not what was planned. `invalid` comes before pass and fail: where the generator was
the bottleneck, neither a latency nor an error can be laid at the server's door. `fail` is left for a server that missed
a threshold under a generator that kept up; errors alone never make a run invalid as long as the target answered at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loadgen.machine import LAG_BOUND_MS
from loadgen.spike.plan import Loop
from loadgen.spike.thresholds import Held

Word = Literal["pass", "fail", "invalid", "stopped"]

SEND_LAG_S = 0.05
SEND_LAG_SHARE = 0.05
CPU_SHARE = 0.9
GAP_S = 0.1
GAP_SHARE = 0.2
LOST = 2
LOST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Check:
    """A doubt about the generator. It stands when `value` is past `bound`; `ok` is None where the check could not be
    made. The unit of both is the last part of `name`; `says` is for people."""

    name: str
    value: float | None
    bound: float | None
    ok: bool | None
    says: str


@dataclass(frozen=True, slots=True)
class Verdict:
    verdict: Word
    thresholds: tuple[Held, ...]
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not a pass, in words; nothing for a run that was stopped, which needs no reason."""
        if self.verdict == "invalid":
            return tuple(check.says for check in self.checks if check.ok is False)
        if self.verdict == "fail":
            return tuple(_missed(held) for held in self.thresholds if not held.ok)
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the checks look at; None for what is not known. `planned` is None in a closed loop. `answered` are the
    requests of which anything came back, an error too. `client_ttft_s` and `server_ttft_s` are means over the same
    requests, else both are None and `no_gap` says why."""

    loop: Loop
    planned: int | None
    sent: int
    dropped: int
    answered: int
    max_in_flight: int
    send_lag_p99_s: float | None
    e2e_p50_s: float | None
    cpu_share: float | None
    loop_lag_p99_s: float | None
    client_ttft_s: float | None
    server_ttft_s: float | None
    no_gap: str = ""
    troubles: Sequence[str] = ()


def judge(evidence: Evidence, thresholds: Sequence[Held], stopped: bool = False) -> Verdict:
    found = checks(evidence)
    word: Word = "pass"
    if stopped:
        word = "stopped"
    elif any(check.ok is False for check in found):
        word = "invalid"
    elif not all(held.ok for held in thresholds):
        word = "fail"
    return Verdict(word, tuple(thresholds), found)


def checks(evidence: Evidence) -> tuple[Check, ...]:
    open_loop = (_dropped(evidence), _lost(evidence), _send_lag(evidence)) if evidence.loop == "open" else ()
    return (
        _answered(evidence),
        _script(evidence),
        *open_loop,
        _cpu(evidence),
        _loop_lag(evidence),
        _gap(evidence),
    )


def _answered(evidence: Evidence) -> Check:
    """Without a single answer a dead server and a way that does not lead to it look the same."""
    if not evidence.sent:
        says = "Nothing was sent."
    elif not evidence.answered:
        says = f"Not one of {evidence.sent:,} requests got any answer: nothing can be said about the target."
    else:
        says = f"{evidence.answered:,} of {evidence.sent:,} requests got an answer."
    return Check("answered", evidence.answered, 1, evidence.answered > 0, says)


def _script(evidence: Evidence) -> Check:
    count = len(evidence.troubles)
    says = f"The script itself failed: {evidence.troubles[0]}" if count else "The script ran without an error."
    return Check("script_errors", count, 0, not count, says)


def _dropped(evidence: Evidence) -> Check:
    """Any at all: a drop is an arrival that the server was spared, at the moment when it was slowest."""
    count = evidence.dropped
    says = "Every arrival found somebody free to send it."
    if count:
        due = evidence.sent + count
        says = (
            f"{count:,} of {due:,} arrivals were dropped: at most {evidence.max_in_flight:,} requests may be under way "
            "at once, and the load fell short of the plan."
        )
    return Check("dropped", count, 0, not count, says)


def _lost(evidence: Evidence) -> Check:
    """Arrivals that were neither sent nor reported as dropped. Tools round the last one up or down."""
    planned = evidence.planned or 0
    bound = max(LOST, int(LOST_SHARE * planned))
    lost = max(0, planned - evidence.sent - evidence.dropped)
    says = f"{planned:,} arrivals were planned and {evidence.sent:,} sent"
    says += "." if lost <= bound else f"; {lost:,} are missing that the tool never told of."
    return Check("lost", lost, bound, lost <= bound, says)


def _send_lag(evidence: Evidence) -> Check:
    """What goes out late falsifies the latency from the schedule by as much. 5 % of the usual request is less than two
    runs differ by anyhow; below 50 ms a busy machine's scheduler is seen, not a generator that falls behind."""
    bound = max(SEND_LAG_S, SEND_LAG_SHARE * (evidence.e2e_p50_s or 0.0))
    value = evidence.send_lag_p99_s
    if value is None:
        return Check("send_lag_p99_s", None, bound, None, "How late requests went out is not known.")
    says = f"1 in 100 requests went out {value * 1000:,.0f} ms or more after it was due; up to {bound * 1000:,.0f} ms"
    says += " is tolerated."
    return Check("send_lag_p99_s", value, bound, value <= bound, says)


def _cpu(evidence: Evidence) -> Check:
    value = evidence.cpu_share
    if value is None:
        return Check("cpu_share", None, CPU_SHARE, None, "What the generator used of its CPU is not known.")
    says = f"At its busiest the generator used {value:.0%} of the CPU that it can use; up to {CPU_SHARE:.0%} is well."
    return Check("cpu_share", value, CPU_SHARE, value <= CPU_SHARE, says)


def _loop_lag(evidence: Evidence) -> Check:
    value, bound = evidence.loop_lag_p99_s, LAG_BOUND_MS / 1000
    if value is None:
        return Check("loop_lag_p99_s", None, bound, None, "How late our own event loop woke is not known.")
    says = f"Our own event loop woke up to {value * 1000:,.0f} ms late (99 %); up to {LAG_BOUND_MS:.0f} ms is well."
    return Check("loop_lag_p99_s", value, bound, value <= bound, says)


def _gap(evidence: Evidence) -> Check:
    """What the client saw beyond what the server did is time on the wire or in a generator that read late. A client
    that saw less than the server says that one of the two counts wrong."""
    client_s, server_s = evidence.client_ttft_s, evidence.server_ttft_s
    if client_s is None or server_s is None:
        return Check("ttft_gap_s", None, None, None, f"Not compared with the server's own TTFT: {evidence.no_gap}")
    bound, gap = max(GAP_S, GAP_SHARE * server_s), client_s - server_s
    says = (
        f"Mean TTFT is {client_s * 1000:,.0f} ms here and {server_s * 1000:,.0f} ms by the server's own histogram: "
        f"{abs(gap) * 1000:,.0f} ms {'more' if gap >= 0 else 'less'}; up to {bound * 1000:,.0f} ms is tolerated."
    )
    return Check("ttft_gap_s", gap, bound, abs(gap) <= bound, says)


def _missed(held: Held) -> str:
    return f"{held.text}: there is no data" if held.value is None else f"{held.text}: it was {held.value:,.4g}"
