"""What a run promises, with a tool that does what a test wrote down: its figures are kept, whatever becomes of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from loadgen.spike import folder
from loadgen.spike.order import Order, Outcome
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.point import Began, Dropped, Point, Sent, Trouble
from loadgen.spike.preflight import Target
from loadgen.spike.progress import Progress
from loadgen.spike.run import run
from loadgen.spike.supervisor import Limits
from loadgen.spike.thresholds import BadThreshold
from loadgen.spike.tools.tool import ToolFailed
from tests.spike.scripted_tool import Script, ScriptedTool

QUICK = Limits(arm_s=0.3, armed_s=0.3, fire_s=0.3, over_s=0.0, stop_s=0.3, kill_s=0.3)
PLAN = Plan("spike", "open", 10, (Stage(10, 0.4),), "k6", work=(Prompt("Why?", 8),), model="m")
NOWHERE = Target(url="http://127.0.0.1:9", model="m", models=("m",), holds_headers=True, simulated=False, what="nobody")


def served(n: int, sent_s: float) -> Point:
    return Point(
        n=n, by="scripted", due_s=sent_s, sent_s=sent_s, headers_s=sent_s + 0.02, ended_s=sent_s + 0.1, status=200
    )


FOUR = (Began(0.0), *(report for n in range(4) for report in (Sent(n, n * 0.1), served(n, n * 0.1))))


class Stand:
    """A run in a folder of its own. `on` gives a command when the run has come to a state."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[Progress] = []
        self.tools: list[ScriptedTool] = []
        self.commands: asyncio.Queue[str] = asyncio.Queue()
        self.on: dict[str, Callable[[], None]] = {}

    async def run(self, script: Script, *, plan: Plan = PLAN, armed: bool = False, limits: Limits = QUICK) -> Outcome:
        order = Order(plan=plan, tool="scripted", target=NOWHERE, folder=self.path, armed=armed)
        return await asyncio.wait_for(run(order, self._commands(), self._said, self._make(script), limits), 20)

    def give(self, command: str) -> Callable[[], None]:
        return lambda: self.commands.put_nowait(command)

    @property
    def states(self) -> list[str]:
        states = [progress.state for progress in self.told]
        return [state for i, state in enumerate(states) if states[i - 1 : i] != [state]]

    def _make(self, script: Script):
        def make(name: str, job) -> ScriptedTool:
            assert name == "scripted"
            self.tools.append(ScriptedTool(script, job))
            return self.tools[-1]

        return make

    async def _commands(self) -> AsyncIterator[str]:
        while True:
            yield await self.commands.get()

    def _said(self, progress: Progress) -> None:
        self.told.append(progress)
        if act := self.on.pop(progress.state, None):
            act()


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


async def test_a_run_leaves_its_folder_and_says_how_it_went(stand: Stand) -> None:
    outcome = await stand.run(Script(FOUR))
    assert (outcome.exit_code, outcome.problems) == (0, ())
    assert (outcome.summary.counts.served, outcome.summary.verdict.verdict) == (4, "pass")
    assert outcome.headline == "4 of 4 served, TTFT p95 20 ms (held headers)"
    kept = folder.read_run(stand.path)
    assert kept.plan == PLAN and kept.summary == outcome.summary
    points = list(kept.points())
    assert [point.n for point in points] == [0, 1, 2, 3]
    assert all(point.first_by == "held headers" and point.due_s is not None for point in points)
    assert "pass" in (stand.path / "report.html").read_text().lower()
    assert stand.states == ["arming", "armed", "running", "ended"]
    assert (stand.told[-1].served, stand.told[-1].in_flight) == (4, 0)
    assert stand.tools[0].killed, "nothing of it may stay"
    assert not folder.is_held(stand.path)


async def test_while_it_lasts_its_folder_is_held(stand: Stand) -> None:
    held: list[bool] = []
    stand.on = {"running": lambda: held.append(folder.is_held(stand.path))}
    await stand.run(Script(FOUR))
    assert held == [True]
    with folder.held(stand.path), pytest.raises(folder.BadFolder):
        await stand.run(Script(FOUR))


async def test_armed_it_waits_until_it_is_fired(stand: Stand) -> None:
    stand.on = {"armed": stand.give("fire")}
    outcome = await stand.run(Script(FOUR), armed=True)
    assert outcome.exit_code == 0
    assert stand.states == ["arming", "armed", "running", "ended"]


async def test_armed_for_too_long_it_gives_up(stand: Stand) -> None:
    outcome = await stand.run(Script(FOUR), armed=True)
    assert outcome.exit_code == 103
    assert "Nobody fired it" in outcome.problems[0]
    assert outcome.summary.counts.sent == 0


@pytest.mark.parametrize("command", ["stop", "kill"])
async def test_stopped_while_armed_it_is_recorded_as_stopped(stand: Stand, command: str) -> None:
    stand.on = {"armed": stand.give(command)}
    outcome = await stand.run(Script(FOUR), armed=True, limits=Limits())
    assert (outcome.exit_code, outcome.summary.verdict.verdict) == (103, "stopped")
    assert folder.read_run(stand.path).summary.about.stopped
    assert "running" not in stand.states


@pytest.mark.parametrize("command", ["stop", "kill"])
async def test_stopped_while_it_runs_it_keeps_what_was_measured(stand: Stand, command: str) -> None:
    stand.on = {"running": stand.give(command)}
    outcome = await stand.run(Script((*FOUR, Sent(9, 0.5)), hangs=True), limits=Limits())
    assert (outcome.exit_code, outcome.summary.verdict.verdict) == (103, "stopped")
    assert (outcome.summary.counts.served, outcome.summary.counts.unfinished) == (4, 1)
    assert len(list(folder.read_run(stand.path).points())) == 5
    assert stand.tools[0].stopped is (command == "stop") or stand.tools[0].killed


async def test_a_tool_that_takes_no_stop_is_killed(stand: Stand) -> None:
    stand.on = {"running": stand.give("stop")}
    outcome = await stand.run(Script(FOUR, hangs=True, deaf=True))
    assert outcome.exit_code == 103
    assert stand.tools[0].stopped and stand.tools[0].killed
    assert outcome.summary.counts.served == 4


async def test_a_tool_that_does_not_end_is_ended_and_its_figures_are_judged(stand: Stand) -> None:
    at_once = Plan("spike", "closed", 1, (Stage(1, 0.1),), "k6", work=PLAN.work)
    outcome = await stand.run(Script(FOUR, hangs=True), plan=at_once, limits=Limits(over_s=-60.0, stop_s=1, kill_s=1))
    assert "had not ended" in outcome.problems[0]
    assert stand.tools[0].stopped
    assert (outcome.exit_code, outcome.summary.verdict.verdict) == (0, "pass")


async def test_a_tool_that_waits_for_nothing_is_ended_before_the_deadline(stand: Stand) -> None:
    outcome = await stand.run(Script(FOUR, hangs=True), limits=Limits(quiet_s=0.1))
    assert "nothing to wait for" in outcome.problems[0]
    assert stand.states == ["arming", "armed", "running", "draining", "ended"]
    assert (outcome.exit_code, stand.tools[0].stopped) == (0, True)


async def test_an_answer_that_takes_long_is_waited_for(stand: Stand) -> None:
    """Until the deadline, which here is the third second."""
    script = Script((*FOUR, Sent(9, 0.3)), hangs=True)
    outcome = await stand.run(script, limits=Limits(quiet_s=0.1, over_s=-57.4))
    assert "had not ended after 3 s" in outcome.problems[0]
    assert outcome.summary.counts.unfinished == 1


@pytest.mark.parametrize("step", ["arm", "fire"])
async def test_a_tool_that_hangs_before_it_begins_is_given_up(stand: Stand, step: str) -> None:
    outcome = await stand.run(Script(FOUR, stuck=frozenset({step})))
    assert "within" in outcome.problems[0]
    assert outcome.exit_code == (2 if step == "arm" else 98)
    assert stand.tools[0].killed


@pytest.mark.parametrize(("ending", "code"), [("script", 107), ("options", 2), ("failed", 2)])
async def test_a_tool_that_cannot_be_armed_says_why(stand: Stand, ending, code: int) -> None:
    outcome = await stand.run(Script(arming=ToolFailed("Its words.", ending)))
    assert (outcome.exit_code, outcome.problems) == (code, ("Its words.",))
    assert outcome.summary.verdict.verdict == "invalid"
    assert outcome.summary.troubles == ("Its words.",)
    assert stand.states == ["arming", "ended"]


async def test_a_port_that_was_taken_meanwhile_is_tried_again(stand: Stand) -> None:
    outcome = await stand.run(Script(FOUR, ports_taken=2))
    assert (outcome.exit_code, len(stand.tools)) == (0, 3)
    assert all(tool.killed for tool in stand.tools)


async def test_a_port_that_is_always_taken_is_an_error(stand: Stand) -> None:
    outcome = await stand.run(Script(FOUR, ports_taken=99))
    assert (outcome.exit_code, outcome.problems) == (2, ("The port was taken.",))


async def test_a_tool_that_dies_while_it_waits_is_noticed(stand: Stand) -> None:
    outcome = await stand.run(Script(dies_armed=True, ending=("failed", "out of memory")), armed=True)
    assert (outcome.exit_code, outcome.problems) == (2, ("out of memory",))


async def test_a_tool_that_dies_while_it_runs_makes_the_run_invalid_and_keeps_its_points(stand: Stand) -> None:
    outcome = await stand.run(Script(FOUR, ending=("failed", "exit status -9")))
    assert (outcome.exit_code, outcome.summary.verdict.verdict) == (98, "invalid")
    assert outcome.summary.counts.served == 4
    assert "exit status -9" in outcome.problems


async def test_a_script_that_throws_every_time_is_no_pass(stand: Stand) -> None:
    trouble = Trouble("TypeError: prompt is undefined, arrivals.js:12")
    outcome = await stand.run(Script((Began(0.0), trouble, trouble)))
    assert (outcome.exit_code, outcome.problems) == (107, (trouble.text,))


async def test_one_error_of_the_script_among_answers_is_invalid(stand: Stand) -> None:
    outcome = await stand.run(Script((*FOUR, Trouble("once"))))
    assert (outcome.exit_code, outcome.summary.troubles) == (98, ("once",))


async def test_failures_of_the_server_are_a_fail(stand: Stand) -> None:
    bad = [
        Point(n=n, by="scripted", due_s=n / 10, sent_s=n / 10, ended_s=0.5, status=500, error="500") for n in range(4)
    ]
    outcome = await stand.run(Script((Began(0.0), *bad)))
    assert (outcome.exit_code, outcome.summary.verdict.verdict, outcome.problems) == (99, "fail", ())


async def test_dropped_arrivals_are_no_pass(stand: Stand) -> None:
    outcome = await stand.run(Script((*FOUR[:-2], Dropped(0.31))))
    assert (outcome.exit_code, outcome.summary.counts.dropped) == (98, 1)
    assert len(list(folder.read_run(stand.path).points())) == 4


async def test_a_threshold_that_says_nothing_is_refused_at_the_start(stand: Stand) -> None:
    with pytest.raises(BadThreshold):
        await stand.run(Script(FOUR), plan=Plan("spike", "open", 1, (Stage(1, 1),), "k6", thresholds=("ttfb<1",)))
    assert not stand.tools


@pytest.mark.parametrize("times", [1, 2])
async def test_a_signal_stops_it_in_order_and_a_second_one_kills(stand: Stand, times: int) -> None:
    """With the deaf tool the first one would be waited for."""

    def interrupt() -> None:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)

    stand.on = {"running": interrupt}
    outcome = await stand.run(Script(FOUR, hangs=True, deaf=times == 2), limits=Limits())
    assert (outcome.exit_code, outcome.summary.verdict.verdict) == (105, "stopped")
    assert outcome.summary.counts.served == 4
    assert folder.read_run(stand.path).summary.about.stopped
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "whose they were before"


async def test_a_second_signal_after_the_stop_has_begun_kills_at_once(stand: Stand) -> None:
    stand.on = {
        "running": lambda: os.kill(os.getpid(), signal.SIGINT),
        "draining": lambda: os.kill(os.getpid(), signal.SIGINT),
    }
    outcome = await stand.run(Script(FOUR, hangs=True, deaf=True), limits=Limits())
    assert (outcome.exit_code, outcome.summary.counts.served) == (105, 4)
    assert stand.tools[0].stopped and stand.tools[0].killed


async def test_a_run_that_is_cancelled_leaves_no_tool(stand: Stand) -> None:
    running = asyncio.Event()
    stand.on = {"running": running.set}
    task = asyncio.create_task(stand.run(Script(FOUR, hangs=True)))
    await asyncio.wait_for(running.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stand.tools[0].killed and not folder.is_held(stand.path)


async def test_an_error_of_ours_leaves_no_tool(stand: Stand) -> None:
    def wrong() -> None:
        raise ZeroDivisionError

    stand.on = {"running": wrong}
    with pytest.raises(ExceptionGroup) as raised:
        await stand.run(Script(FOUR, hangs=True))
    assert raised.value.subgroup(ZeroDivisionError)
    assert stand.tools[0].killed and not folder.is_held(stand.path)


async def test_a_folder_that_is_gone_is_told_and_nothing_is_sent(stand: Stand) -> None:
    stand.path = stand.path / "gone"
    outcome = await stand.run(Script(FOUR))
    assert outcome.exit_code == 74 and str(stand.path) in outcome.problems[0]
    assert not stand.tools


async def test_a_folder_that_goes_while_it_runs_costs_the_files_but_not_the_figures(stand: Stand) -> None:
    stand.path = stand.path / "run"
    stand.path.mkdir()
    stand.on = {"running": lambda: stand.path.rename(stand.path.with_name("moved"))}
    outcome = await stand.run(Script(FOUR))
    assert outcome.exit_code == 74 and "could not be written" in outcome.problems[0]
    assert outcome.summary.counts.served == 4
