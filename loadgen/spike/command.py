"""`crowdspike spike …`: from what a person typed to a run, and from its outcome to an exit status."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from loadgen.spike import compare, folder, preflight, scenarios, terminal
from loadgen.spike.control import Go, controlled
from loadgen.spike.drive import DriveFailed
from loadgen.spike.kubernetes.cluster import Cluster, check
from loadgen.spike.options import add_arguments, options
from loadgen.spike.order import BAD_INPUT, INTERRUPTED, NOT_WRITTEN, Order
from loadgen.spike.plan import BadPlan, Plan
from loadgen.spike.preflight import BadTarget, Target
from loadgen.spike.report.page import page
from loadgen.spike.run import run
from loadgen.spike.tools.tool import Job, ToolFailed

REFUSALS = (BadPlan, BadTarget, DriveFailed, folder.BadFolder)
"""What a person must put right."""
EXAMPLES = """\
examples:
  crowdspike spike list
  crowdspike spike spike --target http://127.0.0.1:8000 --peak 20 --duration 60s
  crowdspike spike staged --target http://127.0.0.1:8000 --tool locust --duration 10m --threshold 'ttft_p95_ms<1000'
  crowdspike spike audience --target http://127.0.0.1:8000 --peak 200 --room KWXM
  crowdspike spike compare spikes/before spikes/after --html compared.html"""
OWN = {
    "spike": "--peak 20 --duration 60s",
    "staged": "--peak 10 --duration 10m --paused",
    "soak": "--peak 5 --duration 1h --threshold 'failed_share<=0.001'",
    "matrix": "--batch 1,4 --concurrency 1,8,32 --duration 5m",
    "audience": "--peak 200 --room KWXM",
    "amplify": "--room KWXM --copies 20",
}

Command = Callable[..., argparse.ArgumentParser]
"""`(name, run, text, examples, into=…)` adds a subcommand."""


def add_commands(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    into = parser.add_subparsers(required=True, metavar="SCENARIO")
    for name, scenario in scenarios.SCENARIOS.items():
        here = f"  crowdspike spike {name} --target http://127.0.0.1:8000"
        example = f"{here} {OWN.get(name, '')}\n{here} --plan-only > plan.json"
        sub = command(name, partial(_run, scenario=name), scenario.text, example, into=into)
        add_arguments(sub, scenario)
    command("list", _list, "The scenarios, each in a line.", "  crowdspike spike list", into=into)
    example = "  crowdspike spike compare spikes/before spikes/after --html compared.html"
    sub = command("compare", compare.command, "Two runs side by side: what changed beyond noise.", example, into=into)
    compare.add_arguments(sub)
    example = "  crowdspike spike report spikes/20261121T190000Z-spike-k6"
    sub = command("report", _report, "Writes a run's report.html anew from its folder.", example, into=into)
    sub.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")


def _list(args: argparse.Namespace) -> int:
    for scenario in scenarios.SCENARIOS.values():
        print(f"{scenario.name:<10}{scenario.text}")
    return 0


def _report(args: argparse.Namespace) -> int:
    """Raises BadFolder."""
    found = folder.read_run(args.folder)
    path = args.folder / folder.REPORT
    try:
        folder.write(path, page(found.summary, found.plan))
    except OSError as error:
        return _unwritable(path, error)
    print(path)
    return 0


def _run(args: argparse.Namespace, scenario: str) -> int:
    """Raises one of REFUSALS."""
    chosen = options(args)
    plan = scenarios.plan(scenario, chosen)
    if args.plan_only:
        print(plan.to_json())
        return 0
    if not args.target:
        raise BadTarget("Name what is to be loaded with --target, as in --target http://127.0.0.1:8000.")
    url = preflight.address(args.target)
    cluster = _cluster(args, plan)
    if args.dry_run:
        print(_manifests(args, plan, url, cluster) if cluster else terminal.announced(plan, url))
        return 0
    if args.paused and not args.control and not sys.stdin.isatty():
        raise BadPlan("--paused waits for Enter, and there is no terminal. Programs say `fire`, see --control.")
    try:
        return asyncio.run(_spike(args, plan, url, chosen.room, _go(cluster)))
    except KeyboardInterrupt:
        print("Interrupted before anything was sent.", file=sys.stderr)
        return INTERRUPTED
    except ToolFailed as error:
        print(error, file=sys.stderr)
        return BAD_INPUT


def _cluster(args: argparse.Namespace, plan: Plan) -> Cluster | None:
    """Raises BadPlan."""
    given = {
        "--parallelism": args.parallelism,
        "--namespace": args.namespace,
        "--image": args.image,
        "--keep": args.keep,
    }
    if args.on == "here":
        if out_of_place := [name for name, value in given.items() if value]:
            raise BadPlan(f"{out_of_place[0]} is for --on kubernetes.")
        return None
    cluster = Cluster(args.namespace or "", args.parallelism or 1, args.image or "", args.keep)
    check(plan, args.tool, cluster.parallelism)
    return cluster


def _manifests(args: argparse.Namespace, plan: Plan, url: str, cluster: Cluster) -> str:
    """Raises BadPlan, ToolFailed."""
    from loadgen.spike.kubernetes.printing import printed  # kr8s takes 0.4 s that others need not spend

    if plan.scenario == "audience" and not plan.room:
        raise BadPlan("A dry run makes no room: name one with --room, as in --room KWXM.")
    path = args.out or folder.default(plan.scenario, args.tool, datetime.now(UTC))
    secrets = {"api_key": _api_key(), "presenter_token": os.environ.get("CROWDSPIKE_PRESENTER_TOKEN", "")}
    return printed(args.tool, Job(plan, url, path, insecure=args.insecure, **secrets), cluster)


def _go(cluster: Cluster | None) -> Go:
    if cluster is None:
        return run
    from loadgen.spike.kubernetes.tools import LIMITS, TOOLS  # kr8s takes 0.4 s that others need not spend

    return partial(run, make=lambda name, job: TOOLS[name](job, cluster), limits=LIMITS)


def _api_key() -> str:
    return os.environ.get("CROWDSPIKE_SPIKE_API_KEY") or os.environ.get("OPENAI_API_KEY", "")


async def _spike(args: argparse.Namespace, plan: Plan, url: str, room: str, go: Go) -> int:
    if not args.yes:
        _confirm(plan, url, await preflight.strangers(url), args.control)
    api_key = _api_key()
    token = os.environ.get("CROWDSPIKE_PRESENTER_TOKEN", "")
    presents = plan.scenario == "amplify" or (plan.scenario == "audience" and not room)
    if presents and not token:
        raise BadTarget(f"{plan.scenario} needs the presenter's token: set CROWDSPIKE_PRESENTER_TOKEN.")
    target = await preflight.look(
        url,
        api_key=api_key,
        insecure=args.insecure,
        model=plan.model,
        room=room,
        presenter_token=token if presents else "",
        phones=plan.scenario == "audience",
    )
    plan = _named(plan, target)
    path = args.out or folder.default(plan.scenario, args.tool, datetime.now(UTC))
    order = Order(
        plan=plan,
        tool=args.tool,
        target=target,
        folder=path,
        api_key=api_key,
        presenter_token=token,
        insecure=args.insecure,
        armed=args.paused,
        room=room,
        on=args.on,
    )
    try:
        folder.make(path)
    except OSError as error:
        return _unwritable(path, error)
    try:
        return await (_controlled(order, go) if args.control else _watched(order, go))
    finally:
        with suppress(OSError):
            path.rmdir()  # nothing came of it


def _confirm(plan: Plan, url: str, strangers: Iterable[str], control: bool) -> None:
    """Raises BadTarget where the target is a stranger's and nobody says that it may be."""
    if not (found := ", ".join(strangers)):
        return
    told = f"{terminal.announced(plan, url)} ({found}), which is not in a private network."
    if control or not sys.stdin.isatty():
        raise BadTarget(f"{told}\nIf its owner agrees, say so with --yes.")
    print(f"{told}\nIf its owner agrees, type yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise BadTarget("Nothing was sent.")


def _named(plan: Plan, target: Target) -> Plan:
    """With the model that an unnamed one stands for. Raises BadTarget where the matrix has one that is not there."""
    for cell in plan.cells:
        if cell.model and target.models and cell.model not in target.models:
            raise BadTarget(f"{target.url} has no model {cell.model!r}; it has {', '.join(target.models)}.")
    cells = tuple(replace(cell, model=cell.model or target.model) for cell in plan.cells)
    return replace(plan, model=target.model, cells=cells)


async def _controlled(order: Order, go: Go) -> int:
    return (await controlled(order, go=go)).exit_code


async def _watched(order: Order, go: Go) -> int:
    """With a person who looks on."""
    screen = terminal.Screen(sys.stderr)
    print(f"{terminal.announced(order.plan, order.target.url)} ({order.target.what})", file=sys.stderr)
    if order.armed:
        print("Press Enter to begin.", file=sys.stderr)
    outcome = await go(order, _enter(order.armed), screen.said)
    screen.leave()
    print(terminal.ending(outcome, order.folder), flush=True)
    return outcome.exit_code


async def _enter(armed: bool) -> AsyncIterator[str]:
    """`fire` once Enter was pressed, and nothing more."""
    if armed:
        pressed = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, pressed.set)
        try:
            await pressed.wait()
        finally:
            loop.remove_reader(sys.stdin)
        yield "fire" if sys.stdin.readline() else "stop"
    await asyncio.Event().wait()


def _unwritable(path: Path, error: OSError) -> int:
    print(f"{error.filename or path} can't be written: {error.strerror or error}.", file=sys.stderr)
    return NOT_WRITTEN
