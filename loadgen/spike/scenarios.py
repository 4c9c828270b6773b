"""What can be run: each scenario makes a plan of what was asked for. A new one is a function and a line in the table.

Levels are requests a second where the loop is open, users where it is closed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import Any

from loadgen.spike import corpus, thresholds
from loadgen.spike.plan import (
    MAX_DURATION_S,
    MAX_RATE_PER_S,
    MAX_REQUESTS,
    MAX_USERS,
    BadPlan,
    Cell,
    Loop,
    Plan,
    Slo,
    Stage,
)

WORK = 512
"""So many different requests at most; then they come again from the first."""
MAX_CELLS = 100
MAX_PROMPT_TOKENS, MAX_ANSWER_TOKENS = 8_000, 4_096
MAX_COPIES = 1_000
LEAST_BASE_PER_S = 0.2
CELL_S = 30.0
BETWEEN_CELLS_S = 5.0
JOINED_WITHIN_S = 60.0
SPOKEN_TOKENS = (5, 36)
"""What somebody types on a phone: a question alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person asked for; None where the scenario says it. Each is the command's option of that name."""

    tool: str = "k6"
    peak: float | None = None
    duration_s: float | None = None
    seed: int = 1
    closed: bool = False
    model: str = ""
    prompt_tokens: tuple[int, int] = (16, 400)
    max_tokens: tuple[int, int] = (64, 200)
    cache_busting: bool = False
    ignore_eos: bool = False
    slo: Slo = field(default_factory=Slo)
    thresholds: tuple[str, ...] = ()
    max_in_flight: int = 500
    timeout_s: float = 120.0
    batches: tuple[int, ...] = (1, 4)
    concurrency: tuple[int, ...] = (1, 8)
    models: tuple[str, ...] = ()
    room: str = ""
    copies: int = 5


@dataclass(frozen=True, slots=True)
class Scenario:
    """`text` says in a line what it does. `takes` names the options that it has beside those that all have.
    `build` raises BadPlan."""

    name: str
    text: str
    takes: frozenset[str]
    build: Callable[[Options], Plan]


def plan(name: str, options: Options) -> Plan:
    """What will be run. Raises BadPlan: there is no such scenario, or an option is out of bounds; the text names it and
    what would be right."""
    if name not in SCENARIOS:
        near = difflib.get_close_matches(name, SCENARIOS, 1)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(SCENARIOS)}."
        raise BadPlan(f"There is no scenario {name!r}. {hint}")
    _check(options)
    return SCENARIOS[name].build(options)


def _spike(options: Options) -> Plan:
    peak, length_s = _peak(options, 20), _duration(options, 60)
    base = max(1, round(peak / 20)) if options.closed else min(peak, max(LEAST_BASE_PER_S, peak / 20))
    stages = (
        Stage(base, 0.2 * length_s, "before"),
        Stage(peak, 0, "spike"),
        Stage(peak, 0.4 * length_s, "spike"),
        Stage(base, 0, "after"),
        Stage(base, 0.4 * length_s, "after"),
    )
    return _arrivals("spike", options, base, stages)


def _staged(options: Options) -> Plan:
    peak, length_s = _peak(options, 10), _duration(options, 45 * 60)
    quiet = max(1, round(peak / 4)) if options.closed else peak / 4
    stages = (
        Stage(quiet, 0.10 * length_s, "warm-up"),
        Stage(quiet, 0.35 * length_s, "hold"),
        Stage(peak, 0.15 * length_s, "ramp"),
        Stage(peak, 0.25 * length_s, "peak"),
        Stage(0, 0.15 * length_s, "cool-down"),
    )
    return _arrivals("staged", options, 0, stages)


def _soak(options: Options) -> Plan:
    peak = _peak(options, 5)
    return _arrivals("soak", options, peak, (Stage(peak, _duration(options, 30 * 60), "soak"),))


def _matrix(options: Options) -> Plan:
    """Between two cells nothing is begun, so that answers to the one are not waited for under the load of the next."""
    kinds = list(product(options.models or (options.model,), options.concurrency, options.batches))
    if len(kinds) > MAX_CELLS:
        raise BadPlan(f"--models × --concurrency × --batch make {len(kinds)} cells; up to {MAX_CELLS} can be run.")
    each_s = _duration(options, CELL_S * len(kinds)) / len(kinds)
    if each_s < 1:
        raise BadPlan(f"--duration leaves {each_s:.2g} s for each of {len(kinds)} cells; give {len(kinds)}s or more.")
    gap_s = min(BETWEEN_CELLS_S, each_s / 4)
    cells = tuple(Cell(*kind, n * each_s, (n + 1) * each_s - gap_s) for n, kind in enumerate(kinds))
    if (most := max(cell.users * cell.batch for cell in cells)) > MAX_USERS:
        raise BadPlan(f"--concurrency × --batch make {most} requests at once; up to {MAX_USERS} can be sent.")
    stages: list[Stage] = []
    for cell in cells:
        name = f"{cell.users} × {cell.batch}"
        stages += [Stage(cell.users, 0, name), Stage(cell.users, each_s - gap_s, name), Stage(0, 0), Stage(0, gap_s)]
    return _plan("matrix", options, "closed", cells[0].users, tuple(stages), cells=cells)


def _audience(options: Options) -> Plan:
    """A phone is a person: one of them waits for its answer, so the loop is closed."""
    people = replace(options, closed=True, prompt_tokens=SPOKEN_TOKENS)
    phones, length_s = _peak(people, 50, "phones"), _duration(options, 10 * 60)
    join_s = min(JOINED_WITHIN_S, 0.2 * length_s)
    stages = (Stage(phones, join_s, "join"), Stage(phones, length_s - join_s, "talk"))
    return _plan("audience", people, "closed", 0, stages, room=options.room)


def _amplify(options: Options) -> Plan:
    if not options.room:
        raise BadPlan("amplify repeats a room's questions: name the room with --room, as in --room KWXM.")
    if not 1 <= options.copies <= MAX_COPIES:
        raise BadPlan(f"--copies {options.copies}: give 1 to {MAX_COPIES:,}.")
    stages = (Stage(options.copies, _duration(options, 5 * 60), "amplify"),)
    return _plan("amplify", options, "closed", options.copies, stages, room=options.room, copies=options.copies)


_REQUESTS = frozenset({"model", "prompt_tokens", "max_tokens", "cache_busting", "ignore_eos", "timeout_s"})
_RATES = _REQUESTS | {"peak", "closed", "max_in_flight"}
_CELLS = _REQUESTS | {"batches", "concurrency", "models"}
_PHONES = frozenset({"peak"})
_COPIES = frozenset({"model", "max_tokens", "ignore_eos", "timeout_s", "copies"})
SCENARIOS = {
    one.name: one
    for one in (
        Scenario("spike", "A step up to the peak, and back (20 requests/s, 60s).", _RATES, _spike),
        Scenario(
            "staged", "A talk's length: warm-up, hold, ramp, peak, cool-down (10 requests/s, 45m).", _RATES, _staged
        ),
        Scenario("soak", "The same rate for a long time (5 requests/s, 30m).", _RATES, _soak),
        Scenario("matrix", "Batch sizes × users × models, one cell after the other (30s each).", _CELLS, _matrix),
        Scenario("audience", "Phones that join a room, poll, answer, ask and read (50, 10m).", _PHONES, _audience),
        Scenario("amplify", "A room's own questions, each a number of times (5, for 5m).", _COPIES, _amplify),
    )
}


def _arrivals(name: str, options: Options, start: float, stages: tuple[Stage, ...]) -> Plan:
    return _plan(name, options, "closed" if options.closed else "open", start, stages)


def _plan(name: str, options: Options, loop: Loop, start: float, stages: tuple[Stage, ...], **more: Any) -> Plan:
    made = Plan(
        scenario=name,
        loop=loop,
        start=start,
        stages=stages,
        source="amplified" if name == "amplify" else options.tool,
        seed=options.seed,
        model=options.model,
        cache_busting=options.cache_busting,
        ignore_eos=options.ignore_eos,
        timeout_s=options.timeout_s,
        max_in_flight=options.max_in_flight,
        slo=options.slo,
        thresholds=options.thresholds,
        **more,
    )
    count = WORK if loop == "closed" else min(WORK, _count(made))
    return replace(made, work=corpus.work(options.seed, options.prompt_tokens, options.max_tokens, count))


def _count(made: Plan) -> int:
    """How many requests an open loop makes. Raises BadPlan where they are too many, or none."""
    about = sum((to_s - from_s) * (before + after) / 2 for (from_s, before), (to_s, after) in pairwise(made.corners()))
    if about > MAX_REQUESTS:
        raise BadPlan(f"--peak and --duration make {about:,.0f} requests; up to {MAX_REQUESTS:,} can be sent.")
    count = sum(1 for _ in made.arrivals())
    if not count:
        raise BadPlan("--peak and --duration make not a single request. Raise one of them.")
    return count


def _peak(options: Options, usual: float, users: str = "users") -> float:
    """Requests a second, or a whole number of `users`."""
    peak = usual if options.peak is None else options.peak
    if options.closed and not (peak == int(peak) and 1 <= peak <= MAX_USERS):
        raise BadPlan(f"--peak {peak:g}: these are {users}; give a whole number from 1 to {MAX_USERS:,}.")
    if not 0 < peak <= MAX_RATE_PER_S:
        raise BadPlan(f"--peak {peak:g}: give a rate above 0 and up to {MAX_RATE_PER_S:,.0f} requests a second.")
    return peak


def _duration(options: Options, usual_s: float) -> float:
    length_s = usual_s if options.duration_s is None else options.duration_s
    if not 1 <= length_s <= MAX_DURATION_S:
        raise BadPlan(f"--duration {length_s:g}s: give 1s to {MAX_DURATION_S / 3600:g}h.")
    return length_s


def _check(options: Options) -> None:
    for name, (low, high), most in (
        ("--prompt-tokens", options.prompt_tokens, MAX_PROMPT_TOKENS),
        ("--max-tokens", options.max_tokens, MAX_ANSWER_TOKENS),
    ):
        if not 1 <= low <= high <= most:
            raise BadPlan(f"{name} {low}:{high}: give two numbers from 1 to {most:,}, the smaller one first.")
    if not 1 <= options.max_in_flight <= MAX_USERS:
        raise BadPlan(f"--max-in-flight {options.max_in_flight}: give 1 to {MAX_USERS:,}.")
    if not 0 < options.timeout_s <= MAX_DURATION_S:
        raise BadPlan(f"--timeout {options.timeout_s:g}s: give more than 0 s and up to {MAX_DURATION_S / 3600:g}h.")
    for name, given in (("--batch", options.batches), ("--concurrency", options.concurrency)):
        if not given or not all(1 <= one <= MAX_USERS for one in given):
            raise BadPlan(f"{name} {','.join(map(str, given))}: give whole numbers from 1 to {MAX_USERS:,}.")
    try:
        for text in options.thresholds:
            thresholds.parse(text)
    except thresholds.BadThreshold as error:
        raise BadPlan(f"--threshold: {error}") from None
