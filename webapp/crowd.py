"""How many requests the room is about to make, known before the first of them queues. Pure.

The room is the earliest signal there is: who has joined, and what comes next in the running order, are known minutes
before a replica reports a queue. KEDA reads the number as a trigger (infra/kustomize/overlays/crowd-aware).
"""

from __future__ import annotations

from inference.histogram import Histogram
from webapp.room.state import Phase, RoomState
from webapp.talk.model import Activity, Ask, Quiz

REPLY_S = 2.0
"""How long a reply holds a place in a replica, where nothing longer was measured: a simulated A10G that runs 25 to 32
requests at once takes 1.4 to 2.0 s for one of 25 to 40 tokens (inference/engine/profiles/a10g-mistral-7b-awq.yaml)."""
MEASURED_FROM = 20
"""So many replies make a mean that counts."""
QUESTIONS_EACH = 1.0
ASK_SPREAD_S = 120.0
"""Assumed: in a round without a time limit a phone asks once on average, and the room needs two minutes for it."""


def expected_requests(state: RoomState, now_ms: int, seconds_per_reply: float) -> float:
    """Requests that the room will have in flight at once in its next activity, or still has to bring to the open one.

    Little's law: requests in flight = requests a second × seconds that each takes; the same unit as
    `vllm:num_requests_running`. Requests a second are phones present × requests that the activity makes of each (a quiz
    1, a comment on the answer; a round of questions QUESTIONS_EACH; survey and raffle none, see webapp.replies), less
    those that have come, spread evenly over its time limit.

    The first activity counts from the first phone on, and each next one as soon as the one before it is closed or
    revealed; one that makes no requests counts as none, whatever comes after it. Who has joined counts as present
    until removed, and who has not answered yet as about to: while an activity is open the number falls with every
    answer, and ends at those who never do. Scripted phones count as any other: the fleet serves them too. People answer
    sooner than evenly, so the true peak is higher, about twice: the weight in KEDA's formula is the place to allow for
    that.
    """
    activity = _activity(state, now_ms)
    if activity is None or state.archived_ms is not None:
        return 0.0
    match activity:
        case Quiz():
            each, spread_s = 1.0, float(activity.time_limit_s)
        case Ask():
            each, spread_s = min(QUESTIONS_EACH, activity.max_questions), ASK_SPREAD_S
        case _:
            return 0.0
    windows = state.of(activity.id).windows
    if windows and windows[-1].deadline_ms is not None:
        spread_s = max(1.0, (windows[-1].deadline_ms - windows[-1].opened_ms) / 1000)
    to_come = max(0.0, len(state.present) * each - state.requests(activity.id))
    return to_come / spread_s * seconds_per_reply


def seconds_per_reply(ttft: Histogram, e2e: Histogram) -> float:
    """How long a reply holds a place in a replica, from the gateway's histograms: from the first token to the end,
    because what comes before it is mostly a queue, which more replicas take away.

    At least REPLY_S: a fleet with room to spare answers faster, and would otherwise talk itself down to one that has
    none.
    """
    if min(ttft.count, e2e.count) < MEASURED_FROM:
        return REPLY_S
    return max(REPLY_S, e2e.sum / e2e.count - ttft.sum / ttft.count)


def _activity(state: RoomState, now_ms: int) -> Activity | None:
    """The one that is open or stands ready, else the next that has not been open yet."""
    if state.phase(now_ms) in (Phase.READY, Phase.OPEN):
        return state.activity
    after = 0 if state.current is None else state.talk.index(state.current) + 1
    return next((a for a in state.talk.activities[after:] if not state.of(a.id).windows), None)
