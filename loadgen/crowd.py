"""`make bench-crowd`: a thousand scripted phones in one room. What is lost, how long things take, what they cost.

The web app has one core; the phones and a simulated replica share another. Polls, forms and screens are measured one
after the other; then, with stage and console open, the whole room answers a question, and at last every
acknowledgement is held against the log.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable
from dataclasses import dataclass, field

import uvloop

from loadgen import machine
from loadgen.audit import Audit, audit, read_log
from loadgen.http import Lost
from loadgen.phone import Habits
from loadgen.phones import Phones, Stuck, phones_in
from loadgen.presenter import CallFailed, Presenter
from loadgen.processes import TOKEN, NotReady
from loadgen.stand import FORM, Stand, stand

PER_S = 200
"""How many phones a second join, and send what is measured by itself: forms and screens."""
SETTLE_S = 2.0
SENT_WITHIN_S, SHOWN_WITHIN_S, REPLIED_WITHIN_S = 60, 30, 180

ACK_P99_AIM_MS, SHOWN_AIM_MS, RSS_AIM_MB = 300, 2000, 300


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of the web process for `count` things of one kind."""

    cpu_s: float
    count: int

    @property
    def each_us(self) -> float:
        return self.cpu_s / self.count * 1e6


@dataclass
class Figures:
    """What a run gives. `known_ms` and `shown_ms`: from the presenter's call until a phone's poll said so, and until
    its screen was there, by action, one value a phone."""

    costs: dict[str, Cost] = field(default_factory=dict)
    ack_ms: list[float] = field(default_factory=list)
    poll_ms: list[float] = field(default_factory=list)
    screen_ms: list[float] = field(default_factory=list)
    known_ms: dict[str, list[float]] = field(default_factory=dict)
    shown_ms: dict[str, list[float]] = field(default_factory=dict)
    replies_s: float = 0.0
    replies_failed: int = 0
    cpu_s: float = 0.0
    rss_mb: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)


class Bench:
    """One run in one room."""

    def __init__(self, where: Stand, presenter: Presenter, code: str, phones: Phones, polls_for_s: float) -> None:
        self.figures = Figures()
        self._polls_for_s = polls_for_s
        self._web = where.web.pid
        self._presenter = presenter
        self._code = code
        self._phones = phones

    async def run(self) -> Figures:
        """Raises Stuck, Lost or CallFailed."""
        self._phones.habits.beacons = False
        await asyncio.sleep(SETTLE_S)
        await self._polls()
        await self._forms_and_screens()
        self._phones.habits.beacons = True
        async with self._presenter.screens_open(self._code):
            await self._question()
        records = [phone.record for phone in self._phones.each]
        self.figures.poll_ms = [ms for record in records for ms in record.poll_ms]
        self.figures.screen_ms = [ms for record in records for ms in record.screen_ms]
        self.figures.faults = dict(self._phones.faults)
        self.figures.cpu_s, self.figures.rss_mb = machine.cpu_s(self._web), machine.peak_rss_mb(self._web)
        return self.figures

    async def _polls(self) -> None:
        before_s, before = machine.cpu_s(self._web), self._phones.polls
        await asyncio.sleep(self._polls_for_s)
        self._cost("state poll", before_s, self._phones.polls - before)

    async def _forms_and_screens(self) -> None:
        """Saved forms, which get no reply, and then screens, each while nobody polls."""
        await self._act("next", "")
        await self._act("open", "")
        phones = self._phones.each
        self._phones.habits.polls = False
        await asyncio.sleep(SETTLE_S)
        before_s = machine.cpu_s(self._web)
        await _spread([phone.respond("form", FORM) for phone in phones])
        self._cost("saved response (a form, no reply)", before_s, len(phones))
        before_s = machine.cpu_s(self._web)
        await _spread([phone.see(max(phone.record.shown)) for phone in phones])
        self._cost("phone screen", before_s, len(phones))
        self._phones.habits.polls = True
        await asyncio.sleep(SETTLE_S)

    async def _question(self) -> None:
        """The whole room answers, everybody reads the reply, then the solution is shown."""
        phones, costs = self._phones, self.figures.costs
        await self._act("next", "")
        before_s, polls, screens = machine.cpu_s(self._web), phones.polls, phones.screens
        opened_at = _now()
        await self._act("open", "open")
        await phones.all_acked("cost", SENT_WITHIN_S)
        sent = phones.of("cost")
        self.figures.ack_ms = [(s.acked_at - s.first_at) * 1000 for s in sent if s.acked_at is not None]
        await phones.all_replied("cost", REPLIED_WITHIN_S)
        self.figures.replies_s = max(s.reply_done_at or 0.0 for s in sent) - opened_at
        self.figures.replies_failed = sum(s.reply_failed for s in sent)
        others_us = (phones.polls - polls) * costs["state poll"].each_us
        others_us += (phones.screens - screens) * costs["phone screen"].each_us
        self._cost("answer, its reply, stage and console", before_s + others_us / 1e6, len(sent))
        await self._act("close", "close")
        await self._act("reveal", "reveal")

    async def _act(self, action: str, name: str) -> None:
        """Carries out an action and waits until every phone shows it; its times are kept under `name`, if any."""
        called_at = _now()
        version = await self._presenter.control(self._code, action)
        await self._phones.all(lambda phone: version in phone.record.shown, f"showing {action}", SHOWN_WITHIN_S)
        if name:
            records = [phone.record for phone in self._phones.each]
            self.figures.known_ms[name] = [(record.known[version] - called_at) * 1000 for record in records]
            self.figures.shown_ms[name] = [(record.shown[version] - called_at) * 1000 for record in records]

    def _cost(self, name: str, before_s: float, count: int) -> None:
        self.figures.costs[name] = Cost(machine.cpu_s(self._web) - before_s, count)


async def _spread(works: list[Awaitable[object]]) -> None:
    async def later(after_s: float, work: Awaitable[object]) -> None:
        await asyncio.sleep(after_s)
        await work

    await asyncio.gather(*(later(i / PER_S, work) for i, work in enumerate(works)))


def _now() -> float:
    return asyncio.get_running_loop().time()


async def bench(where: Stand, args: argparse.Namespace) -> tuple[Figures, Audit, machine.Watch]:
    """Raises Stuck, Lost or CallFailed."""
    servers, habits = [where.web.url], Habits(answer_within_s=args.answer_within)
    presenter = Presenter(servers, TOKEN)
    code = await presenter.make_room()
    async with (
        machine.watching([where.web.pid, where.engine.pid]) as watch,
        phones_in(servers, code, args.phones, habits, args.phones / PER_S, args.seed) as phones,
    ):
        figures = await Bench(where, presenter, code, phones, args.polls_for).run()
        export = await presenter.export(code)
    presenter.close()
    return figures, audit(phones.sent, export, read_log(where.store, code)), watch


def report(figures: Figures, found: Audit, watch: machine.Watch) -> str:
    lines = [
        f"acknowledged     {found.acknowledged}   lost {len(found.lost)}   doubled {len(found.doubled)}   "
        f"replies that differ from the log {len(found.wrong_replies)}",
        f"answer ack ms    {machine.quantiles(figures.ack_ms)}{_aim(figures.ack_ms, 0.99, ACK_P99_AIM_MS)}",
        f"state poll ms    {machine.quantiles(figures.poll_ms)}",
        f"phone screen ms  {machine.quantiles(figures.screen_ms)}",
        f"replies          all read {figures.replies_s:.1f} s after opening, {figures.replies_failed} failed",
        "",
        "from the presenter's call, ms:",
    ]
    for action, shown_ms in figures.shown_ms.items():
        lines.append(f"  {action:<7} poll says so    {machine.quantiles(figures.known_ms[action])}")
        lines.append(f"  {'':<7} screen is there {machine.quantiles(shown_ms)}{_aim(shown_ms, 1.0, SHOWN_AIM_MS)}")
    lines += ["", "CPU of the web process, µs each:"]
    lines += [f"  {name:<42} {cost.each_us:8.0f}   (of {cost.count})" for name, cost in figures.costs.items()]
    rss = "met" if figures.rss_mb < RSS_AIM_MB else "MISSED"
    lines += [
        f"  in all {figures.cpu_s:.1f} s; peak memory {figures.rss_mb:.0f} MB   aim < {RSS_AIM_MB} MB: {rss}",
        "",
        watch.report(),
        f"faults           {figures.faults or 'none'}",
    ]
    return "\n".join(lines)


def _aim(values: list[float], share: float, aim_ms: int) -> str:
    met = machine.at(sorted(values), share) < aim_ms
    return f"   aim < {aim_ms}: {'met' if met else 'MISSED'}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadgen.crowd", description=__doc__.partition("\n")[0])
    parser.add_argument("--phones", type=int, default=1000, help="how many (%(default)s)")
    parser.add_argument("--answer-within", type=float, default=10, help="seconds; each at a moment in it (%(default)g)")
    parser.add_argument("--polls-for", type=float, default=10, help="seconds of nothing but polls (%(default)g)")
    parser.add_argument("--timeout", type=float, default=400, help="seconds for the whole run (%(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="decides choices and moments (%(default)s)")
    args = parser.parse_args()
    if sys.platform != "linux":
        print("This bench reads CPU time and memory from /proc: it needs Linux.", file=sys.stderr)
        return 2
    print(f"{args.phones} phones on {machine.description()}", flush=True)
    print("The web app on one core, the phones and one simulated replica on another; the log in a local folder.\n")
    machine.allow_connections(4 * args.phones)
    try:
        with stand() as where, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            work = asyncio.wait_for(bench(where, args), args.timeout)
            figures, found, watch = runner.run(work)
    except (Stuck, Lost, CallFailed, NotReady, TimeoutError) as error:
        print(f"The run did not end: {type(error).__name__} {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report(figures, found, watch))
    return 0 if found.clean and not figures.replies_failed else 1


if __name__ == "__main__":
    sys.exit(main())
