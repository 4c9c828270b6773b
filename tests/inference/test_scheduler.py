"""The scheduler's promises: on small examples worked by hand, and on any history that hypothesis thinks of."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.core import Core
from inference.engine.scheduler import Capacity, Scheduler, Sequence

SMALL = Capacity(max_num_seqs=3, max_num_batched_tokens=24, max_model_len=64, kv_block_size=4, num_kv_blocks=17)
ROOMY = Capacity(max_num_seqs=32, max_num_batched_tokens=2048, max_model_len=8192, num_kv_blocks=8192)


def steps(scheduler: Scheduler, most: int = 10_000):
    """Batches, each finished before the next is formed, until nothing is left to do."""
    for _ in range(most):
        batch = scheduler.schedule(0.0)
        if batch is None:
            return
        yield batch
        scheduler.finish(batch, 0.0)
    raise AssertionError("does not end")


def test_long_prompt_is_computed_in_chunks_of_the_budget():
    scheduler = Scheduler(ROOMY)
    seq = Sequence(5000, 2)
    scheduler.add(seq, 0.0)
    batches = list(steps(scheduler))
    assert [b.prefill_tokens for b in batches] == [2048, 2048, 904, 0]
    assert [len(b.sampling) for b in batches] == [0, 0, 1, 1]


def test_decoding_requests_come_before_a_chunk_of_a_prompt():
    scheduler = Scheduler(ROOMY)
    first = Sequence(10, 50)
    scheduler.add(first, 0.0)
    scheduler.finish(scheduler.schedule(0.0), 0.0)
    scheduler.add(Sequence(3000, 1), 0.0)
    batch = scheduler.schedule(0.0)
    assert (batch.decode_seqs, batch.prefill_tokens, batch.context_tokens) == (1, 2047, 10)
    assert batch.sampling == [first]


def test_the_33rd_request_waits_for_a_seat():
    scheduler = Scheduler(ROOMY)
    seqs = [Sequence(8, 2 + (i == 0)) for i in range(33)]
    for seq in seqs:
        scheduler.add(seq, 0.0)
    seen = [len(b.sampling) for b in steps(scheduler)]
    assert (len(scheduler.running), len(scheduler.waiting)) == (0, 0)
    # 32 at first; after their second token 31 seats are free and the last one comes in beside the first.
    assert seen == [32, 32, 2, 1]


def test_prompts_share_the_budget_of_a_step():
    scheduler = Scheduler(ROOMY)
    for _ in range(3):
        scheduler.add(Sequence(1000, 1), 0.0)
    assert [b.prefill_tokens for b in steps(scheduler)] == [2048, 952]


def test_the_youngest_is_preempted_when_blocks_run_out_and_computed_again():
    # Eight usable blocks of four: two requests of twelve tokens have three each, and one more each at their 13th token;
    # none is left when the older wants its fifth.
    scheduler = Scheduler(Capacity(2, 64, 32, 4, 9))
    old, young = Sequence(12, 8), Sequence(12, 8)
    scheduler.add(old, 0.0)
    scheduler.add(young, 0.0)
    history = []
    for batch in steps(scheduler):
        history.append((len(scheduler.running), len(scheduler.waiting), batch.prefill_tokens))
    assert (old.preemptions, young.preemptions, scheduler.preemptions) == (0, 1, 1)
    assert history[:6] == [(2, 0, 24), *[(2, 0, 0)] * 4, (1, 1, 0)]
    # Its twelve tokens and the five that it had got are a prompt of seventeen now.
    assert [prefill for _, _, prefill in history[6:] if prefill] == [17]
    assert scheduler.free_blocks == 8


def test_a_prompt_whose_blocks_do_not_fit_lets_nobody_past():
    scheduler = Scheduler(Capacity(4, 64, 32, 4, 9))
    scheduler.add(Sequence(20, 4), 0.0)
    big, small = Sequence(28, 2), Sequence(2, 2)
    scheduler.add(big, 0.0)
    scheduler.add(small, 0.0)
    scheduler.schedule(0.0)
    assert list(scheduler.waiting) == [big, small]


def test_aborted_request_gives_its_seat_to_the_next_at_once():
    scheduler = Scheduler(Capacity(1, 64, 32, 4, 9))
    first, second = Sequence(8, 4), Sequence(8, 4)
    scheduler.add(first, 0.0)
    scheduler.add(second, 0.0)
    batch = scheduler.schedule(0.0)
    scheduler.abort(first)
    assert scheduler.free_blocks == 8
    assert scheduler.finish(batch, 0.0) == []
    assert scheduler.schedule(0.0).sampling == [second]


@pytest.mark.parametrize("seq", [Sequence(60, 5), Sequence(200, 1)])
def test_request_longer_than_the_context_is_our_mistake(seq):
    with pytest.raises(AssertionError):
        Scheduler(SMALL).add(seq, 0.0)


lengths = st.tuples(st.integers(1, 50), st.integers(1, 14))
# (steps before it comes, prompt and output tokens, steps after which it is aborted, if it is)
requests = st.lists(
    st.tuples(st.integers(0, 8), lengths, st.one_of(st.none(), st.integers(0, 12))), min_size=1, max_size=20
)
capacities = st.builds(
    Capacity,
    max_num_seqs=st.integers(1, 5),
    max_num_batched_tokens=st.integers(5, 40),
    max_model_len=st.just(64),
    kv_block_size=st.sampled_from((1, 4, 16)),
    num_kv_blocks=st.integers(65, 90),
)


def step_time(batch, rng: random.Random) -> float:
    assert batch.tokens > 0
    return (1 + 0.1 * batch.decode_seqs + 0.05 * batch.prefill_tokens) * rng.lognormvariate(0, 0.1)


def play(capacity: Capacity, plan, *, async_scheduling: bool, seed: int = 1, check: bool = True):
    """The plan through a Core: each request's tokens with their times, and the order of first scheduling. Checks what
    must hold after every step."""
    core = Core(capacity, step_time, async_scheduling=async_scheduling, seed=seed)
    scheduler = core.scheduler
    seqs, arrivals, ends = [], {}, {}
    step = 0
    for wait, (prompt, output), abort_after in plan:
        step += wait
        seq = Sequence(prompt, output, payload=len(seqs))
        seqs.append(seq)
        arrivals.setdefault(step, []).append(seq)
        if abort_after is not None:
            ends.setdefault(step + abort_after, []).append(seq)
    tokens = {seq.payload: [] for seq in seqs}
    now_s, step = 0.0, 0
    order = []
    while arrivals or ends or core.due_s is not None:
        for seq in arrivals.pop(step, ()):
            core.add(seq, now_s)
        for seq in ends.pop(step, ()):
            core.abort(seq)
        if core.due_s is not None:
            now_s = core.due_s
            batch, got = core.advance(now_s)
            assert batch.tokens <= capacity.max_num_batched_tokens
            for seq in got:
                tokens[seq.payload].append(now_s)
        for seq in sorted(seqs, key=lambda s: s.payload):
            if seq.scheduled_s is not None and seq.payload not in order:
                order.append(seq.payload)
        if check:
            held = Counter()
            for seq in seqs:
                held[seq.running] += seq.blocks
            assert len(scheduler.running) <= capacity.max_num_seqs
            assert held[True] + scheduler.free_blocks == capacity.usable_blocks
            assert held[False] == 0
            assert scheduler.free_blocks >= 0
        step += 1
        assert step < 20_000, "does not end"
    return core, seqs, tokens, order


@given(capacities, requests, st.booleans())
def test_everyone_gets_exactly_their_tokens_and_all_is_free_again(capacity, plan, async_scheduling):
    core, seqs, tokens, _ = play(capacity, plan, async_scheduling=async_scheduling)
    for seq, (_, (_, output), abort_after) in zip(seqs, plan, strict=True):
        assert seq.finished
        if abort_after is None:
            assert len(tokens[seq.payload]) == output
        assert tokens[seq.payload] == sorted(set(tokens[seq.payload]))
        assert len(tokens[seq.payload]) <= output
    assert core.scheduler.free_blocks == capacity.usable_blocks
    assert not core.scheduler.running and not core.scheduler.waiting


@given(capacities, requests, st.booleans())
def test_first_come_is_first_scheduled(capacity, plan, async_scheduling):
    _, seqs, _, order = play(capacity, plan, async_scheduling=async_scheduling)
    assert order == sorted(order)
    assert all(seq.scheduled_s >= seq.arrived_s for seq in seqs if seq.scheduled_s is not None)


@given(capacities, requests, st.booleans(), st.integers(0, 5))
def test_the_same_seed_has_the_same_history(capacity, plan, async_scheduling, seed):
    once, again = (play(capacity, plan, async_scheduling=async_scheduling, seed=seed, check=False)[2] for _ in range(2))
    assert once == again


@given(capacities, requests)
def test_async_scheduling_changes_times_and_no_tokens(capacity, plan):
    plan = [(wait, length, None) for wait, length, _ in plan]
    counts = [
        {name: len(times) for name, times in play(capacity, plan, async_scheduling=how, check=False)[2].items()}
        for how in (True, False)
    ]
    assert counts[0] == counts[1]


@given(capacities, requests, st.booleans())
def test_preempted_requests_end_like_the_others(capacity, plan, async_scheduling):
    tight = Capacity(5, capacity.max_num_batched_tokens, 64, 1, 65)
    _, seqs, tokens, _ = play(tight, [(0, length, None) for _, length, _ in plan], async_scheduling=async_scheduling)
    assert [len(tokens[s.payload]) for s in seqs] == [s.output_tokens for s in seqs]
