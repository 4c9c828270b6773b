"""One run: the fleet is set to its size, every seat is taken by a stream, stages are watched, and the room answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic

from inference.engine.profile import Profile
from loadgen import machine
from loadgen.cluster.lateness import Lateness, lateness
from loadgen.cluster.pacing import Pacing, due_s, pacing
from loadgen.cluster.stage import Stage, stages
from loadgen.cluster.streams import PROMPT, Streams
from loadgen.phone import Habits
from loadgen.phones import Phones, phones_in
from loadgen.presenter import Presenter
from loadgen.processes import TOKEN, Process

TOKENS = 1000
JOIN_WITHIN_S = 5.0
READY_WITHIN_S, SPEAKING_WITHIN_S, SENT_WITHIN_S, REPLIED_WITHIN_S = 60.0, 30.0, 30.0, 60.0
TURN_S = 0.05


class TooShort(Exception):
    """The streams were over before the measurement was."""


@dataclass(frozen=True, slots=True)
class Size:
    """`streams` are spread over `replicas`; `seconds` is how long is measured."""

    replicas: int
    streams: int
    phones: int
    stages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Part:
    """One part's share of a core while it was measured; `peak_mb` sums up what each of its processes held at most."""

    name: str
    cores: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Figures:
    """`late_ms` and `gap_ms` are of the stages' snapshots, `saved_ms` and `poll_ms` of the phones; `work` is what the
    cluster's loop did, by its name."""

    pacing: Pacing
    late_ms: list[float]
    gap_ms: list[float]
    poll_ms: list[float]
    saved_ms: list[float]
    replies: int
    replies_failed: int
    work: dict[str, Lateness]
    parts: list[Part]
    watch: machine.Watch
    broken: dict[str, int]


async def bench(web: Process, profile: Profile, size: Size) -> Figures:
    """`web` is a web app with a local cluster. Raises NotSeen, TooShort, Stuck, Lost, CallFailed or TimeoutError."""
    presenter = Presenter([web.url], TOKEN)
    code = await presenter.make_room()
    await presenter.control(code, "goto", activity="cost")
    habits, streams = Habits(answer_within_s=size.seconds / 2), Streams(web.url, TOKENS)
    try:
        async with (
            phones_in([web.url], code, size.phones, habits, JOIN_WITHIN_S) as phones,
            stages(web.url, code, size.stages) as watched,
        ):
            await presenter.steer(code, "pin", replicas=size.replicas)
            await watched[0].until(
                lambda cluster: watched[0].settled and len(cluster["pods"]) == size.replicas,
                f"{size.replicas} pods, all ready",
                READY_WITHIN_S,
            )
            await _all_speak(streams, size.streams)
            await presenter.control(code, "open")
            return await _measure(web, presenter, profile, size, phones, watched, streams)
    finally:
        presenter.close()


async def _all_speak(streams: Streams, count: int) -> None:
    for _ in range(0, count, 10):
        streams.send(10)
        await asyncio.sleep(TURN_S)
    async with asyncio.timeout(SPEAKING_WITHIN_S):
        while streams.speaking < count:
            if streams.ended:
                raise TooShort(f"a stream ended before all had begun: {streams.ended[0].error or 'whole'}")
            await asyncio.sleep(TURN_S)


async def _measure(
    web: Process,
    presenter: Presenter,
    profile: Profile,
    size: Size,
    phones: Phones,
    watched: Sequence[Stage],
    streams: Streams,
) -> Figures:
    engines = machine.children(web.pid)
    polls = [len(phone.record.poll_ms) for phone in phones.each]
    seen = [len(stage.late_ms) for stage in watched]
    late_before = lateness(await presenter.metrics())
    before_s, from_s = _cpu_s(web, engines), monotonic()
    async with machine.watching([web.pid, *engines]) as watch:
        await asyncio.sleep(size.seconds)
    to_s, after_s = monotonic(), _cpu_s(web, engines)
    work = {name: late.since(late_before[name]) for name, late in lateness(await presenter.metrics()).items()}
    if streams.ended:
        raise TooShort(f"{len(streams.ended)} streams ended while they were measured: {streams.ended[0].error!r}")
    web_cores, engines_cores = ((b - a) / (to_s - from_s) for a, b in zip(before_s, after_s, strict=True))
    parts = [
        Part("web process", web_cores, machine.peak_rss_mb(web.pid)),
        Part(f"{len(engines)} replicas", engines_cores, sum(map(machine.peak_rss_mb, engines))),
        Part("load generator", watch.cpu_share, machine.peak_rss_mb(os.getpid())),
    ]
    poll_ms = [ms for phone, first in zip(phones.each, polls, strict=True) for ms in phone.record.poll_ms[first:]]
    late_ms = [ms for stage, first in zip(watched, seen, strict=True) for ms in stage.late_ms[first:]]
    gap_ms = [
        (after_s - before_s) * 1000
        for stage, first in zip(watched, seen, strict=True)
        for before_s, after_s in pairwise(stage.received_s[first:])
    ]
    per_replica = -(-size.streams // size.replicas)
    due = due_s(profile, per_replica, len(PROMPT.split()), TOKENS)
    paced = pacing([stream.token_s for stream in streams.open], due, from_s, to_s)
    # Every seat was taken: the room's replies are made now.
    await phones.all_acked("cost", SENT_WITHIN_S)
    streams.drop()
    await phones.all_replied("cost", REPLIED_WITHIN_S)
    sent = phones.of("cost")
    return Figures(
        pacing=paced,
        late_ms=late_ms,
        gap_ms=gap_ms,
        poll_ms=poll_ms,
        saved_ms=[(one.acked_at - one.first_at) * 1000 for one in sent if one.acked_at is not None],
        replies=len(sent),
        replies_failed=sum(one.reply_failed for one in sent),
        work=work,
        parts=parts,
        watch=watch,
        broken=dict(phones.faults),
    )


def _cpu_s(web: Process, engines: Sequence[int]) -> tuple[float, float]:
    return machine.cpu_s(web.pid), sum(map(machine.cpu_s, engines))
