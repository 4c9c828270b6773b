"""How people behave, as random draws. Pure: the randomness is the caller's.

That response times to test items follow a log-normal distribution is van der Linden, "A lognormal model for response
times on test items", Journal of Educational and Behavioral Statistics 31 (2006). The parameters are assumed: nobody has
published those of a room with phones.
"""

from __future__ import annotations

import math
from random import Random

JOIN_MEDIAN_S = 75.0  # from when the code is on the screen
JOIN_SIGMA = 0.9  # nine in ten within four minutes
ANSWER_MEDIAN_SHARE = 0.35  # of the time limit
ANSWER_SIGMA = 0.5
HURRY_SHARE = 0.15  # who would be too late answers in this last part of the time
ANSWERS_SHARE = 0.85  # of the phones, each question anew
ASKS_SHARE = 0.5
ASKS_AGAIN_SHARE = 0.4  # after each question
TYPING_MEDIAN_S = 35.0
TYPING_SIGMA = 0.6


def joins_s(rng: Random) -> float:
    """When a phone joins, in seconds from when the code is shown."""
    return rng.lognormvariate(math.log(JOIN_MEDIAN_S), JOIN_SIGMA)


def answers_s(rng: Random, limit_s: float) -> float | None:
    """When a phone answers, in seconds from the opening; None if it does not."""
    if rng.random() >= ANSWERS_SHARE:
        return None
    at_s = rng.lognormvariate(math.log(ANSWER_MEDIAN_SHARE * limit_s), ANSWER_SIGMA)
    return at_s if at_s < limit_s else limit_s * (1 - HURRY_SHARE * rng.random())


def asks_s(rng: Random, open_s: float, most: int) -> list[float]:
    """When a phone asks, in seconds from the opening: one question after the other, as long as it takes them."""
    found: list[float] = []
    at_s = 0.0
    share = ASKS_SHARE
    while len(found) < most and rng.random() < share:
        at_s += rng.lognormvariate(math.log(TYPING_MEDIAN_S), TYPING_SIGMA)
        if at_s >= open_s:
            break
        found.append(at_s)
        share = ASKS_AGAIN_SHARE
    return found
