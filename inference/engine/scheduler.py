"""Which requests the next step computes: vLLM's continuous batching. Pure: no clock, no I/O, no randomness.

Each step has a budget of tokens. Running requests come first, in their order; then the waiting ones, first come first
served, as long as there are seats, budget and KV blocks. A prompt longer than what is left of the budget is computed in
chunks. When a running request finds no block for its next token, the youngest running one is preempted: its blocks are
freed and it is computed again later. After vllm/v1/core/sched/scheduler.py of vLLM 0.32, without its prefix cache,
LoRA, encoders, speculative decoding and transfer of KV blocks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Capacity:
    """vLLM's arguments of the same names. `num_kv_blocks` is what it logs as num_gpu_blocks."""

    max_num_seqs: int = 32
    max_num_batched_tokens: int = 2048
    max_model_len: int = 4096
    kv_block_size: int = 16
    num_kv_blocks: int = 8192

    @property
    def usable_blocks(self) -> int:
        return self.num_kv_blocks - 1  # vLLM keeps one block that stands for "none"


class Sequence:
    """One request: `prompt_tokens` in, `output_tokens` out. `payload` is the caller's own.

    The times are the clock's that is passed to the scheduler; None until it has happened. `generated` tokens have
    been handed out, `sampled` have been computed or are being computed.
    """

    __slots__ = (
        *("prompt_tokens", "output_tokens", "payload", "computed", "sampled", "generated", "blocks", "running"),
        *("preemptions", "arrived_s", "scheduled_s", "first_token_s", "last_token_s", "finished"),
    )

    def __init__(self, prompt_tokens: int, output_tokens: int, payload: object = None) -> None:
        assert prompt_tokens > 0 and output_tokens > 0
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.payload = payload
        self.computed = self.sampled = self.generated = 0
        self.blocks = 0
        self.running = self.finished = False
        self.preemptions = 0
        self.arrived_s = 0.0
        self.scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None

    @property
    def known(self) -> int:
        """Tokens whose keys and values have to be computed before the next one can be sampled."""
        return self.prompt_tokens + self.sampled


@dataclass(slots=True)
class Batch:
    """What one step computes. `sampling` are the requests that get a token from it."""

    prefill_tokens: int = 0
    decode_seqs: int = 0
    context_tokens: int = 0  # that the decoding requests attend to
    sampling: list[Sequence] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.prefill_tokens + self.decode_seqs


@dataclass(frozen=True, slots=True)
class Counts:
    """What vLLM's gauges say. It counts when a step has ended and before the next is formed: who came during the step
    is in no count yet, and who is in their first step does not run yet. `kv_usage` is the share of blocks in use."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0


class Scheduler:
    """`schedule()` forms a batch, `finish()` takes its result; a second may be formed before the first is done."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.free_blocks = capacity.usable_blocks
        self.preemptions = 0
        self.counts = Counts()
        self._left_waiting = 0

    @property
    def kv_usage(self) -> float:
        """The share of blocks in use, 0 to 1."""
        return 1 - self.free_blocks / self.capacity.usable_blocks

    def add(self, seq: Sequence, now_s: float) -> None:
        """Put a new request last in line. It must fit the model's context and the KV cache as a whole."""
        total = seq.prompt_tokens + seq.output_tokens
        assert total <= self.capacity.max_model_len, "longer than the context"
        assert self._blocks_for(total) <= self.capacity.usable_blocks, "can never fit the KV cache"
        seq.arrived_s = now_s
        self.waiting.append(seq)

    def abort(self, seq: Sequence) -> None:
        """Drop a request in any phase; its seat and blocks are free at once. A finished one is left alone."""
        if not seq.finished:
            self._remove(seq)

    def schedule(self, now_s: float) -> Batch | None:
        """The next step's work, or None when there is none."""
        batch = Batch()
        budget = self.capacity.max_num_batched_tokens
        preempted = False
        i = 0
        while i < len(self.running) and budget > 0:
            seq = self.running[i]
            new = min(seq.known - seq.computed, budget)
            if seq.sampled >= seq.output_tokens or new <= 0:
                i += 1  # its last token is being computed
                continue
            while not (fits := self._allocate(seq, new)):
                victim = self.running[-1]
                self._preempt(victim)
                preempted = True
                if victim is seq:
                    break
            if not fits:
                break
            budget -= new
            self._take(batch, seq, new)
            i += 1
        while not preempted and self.waiting and budget > 0 and len(self.running) < self.capacity.max_num_seqs:
            seq = self.waiting[0]
            if seq.sampled > seq.generated:
                break  # preempted while its token was being computed: that one comes first
            new = min(seq.known, budget)
            # The whole prompt must fit, not only its first chunk (vLLM: scheduler_reserve_full_isl).
            if self._blocks_for(seq.known) > self.free_blocks or not self._allocate(seq, new):
                break
            self.waiting.popleft()
            self.running.append(seq)
            seq.running = True
            if seq.scheduled_s is None:
                seq.scheduled_s = now_s
            budget -= new
            self._take(batch, seq, new)
        self._left_waiting = len(self.waiting)
        return batch if batch.tokens else None

    def finish(self, batch: Batch, now_s: float) -> list[Sequence]:
        """The step is done: those that got a token, in the order of the batch. Who got the last one is `finished`."""
        got = []
        for seq in batch.sampling:
            if seq.finished:
                continue  # aborted meanwhile
            seq.generated += 1
            if seq.first_token_s is None:
                seq.first_token_s = now_s
            seq.last_token_s = now_s
            if seq.generated >= seq.output_tokens:
                self._remove(seq)
            got.append(seq)
        self.counts = Counts(len(self.running), min(self._left_waiting, len(self.waiting)), self.kv_usage)
        return got

    def _take(self, batch: Batch, seq: Sequence, new: int) -> None:
        if new == 1 and seq.sampled and seq.computed:
            batch.decode_seqs += 1
            batch.context_tokens += seq.computed
        else:
            batch.prefill_tokens += new
        seq.computed += new
        if seq.computed == seq.known:
            seq.sampled += 1
            batch.sampling.append(seq)

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.capacity.kv_block_size)

    def _allocate(self, seq: Sequence, new: int) -> bool:
        needed = self._blocks_for(seq.computed + new) - seq.blocks
        if needed > self.free_blocks:
            return False
        self.free_blocks -= needed
        seq.blocks += needed
        return True

    def _free(self, seq: Sequence) -> None:
        self.free_blocks += seq.blocks
        seq.blocks = seq.computed = 0

    def _preempt(self, seq: Sequence) -> None:
        popped = self.running.pop()
        assert popped is seq, "only the youngest is preempted"
        self._free(seq)
        seq.running = False
        seq.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(seq)

    def _remove(self, seq: Sequence) -> None:
        seq.finished = True
        (self.running if seq.running else self.waiting).remove(seq)
        seq.running = False
        self._free(seq)
