import asyncio
import json
import signal
from collections import Counter

import openai
import pytest

from inference.engine.seats import Pace, Seats
from inference.pool import RUNNING, WAITING, gauge
from inference.upstream import ConnectFailed, ConnectionLost, Upstream
from tests.inference.servers import LONG_ANSWER, STEADY, STORY, engine, engine_process, get, serving, until

CHAT = "/v1/chat/completions"
STREAM = b'{"messages":[{"role":"user","content":"long story"}],"stream":true}'
WHOLE = b'{"messages":[{"role":"user","content":"story"}]}'


async def figures(url: str) -> tuple[int, int]:
    _, body = await get(url, "/metrics")
    return gauge(body.decode(), RUNNING), gauge(body.decode(), WAITING)


async def test_official_client_reads_answers_and_streams():
    async with serving(engine()) as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-") as client:
        models = await client.models.list()
        assert [model.id for model in models.data] == ["mistral"]
        whole = await client.chat.completions.create(model="mistral", messages=STORY)
        assert whole.choices[0].message.content == LONG_ANSWER
        assert whole.choices[0].finish_reason == "stop"
        stream = await client.chat.completions.create(
            model="mistral", messages=STORY, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content for c in chunks if c.choices) == LONG_ANSWER
        assert [c.usage.completion_tokens for c in chunks if c.usage] == [whole.usage.completion_tokens]
        text = await client.completions.create(model="mistral", prompt="story", max_tokens=3)
        assert text.choices[0].text == "word0 word1 word2"
        assert text.choices[0].finish_reason == "length"
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="nope", messages=STORY)


async def test_at_most_max_num_seqs_run_and_the_rest_is_seen_waiting():
    replica = engine(STEADY)
    async with serving(replica) as url:
        upstream = Upstream(url)
        exchanges = await asyncio.gather(*(upstream.post(CHAT, STREAM) for _ in range(40)))
        await until(lambda: replica.seats.running + replica.seats.waiting == 40)
        assert await figures(url) == (32, 8)
        for exchange in exchanges:
            exchange.close()
        await until(lambda: replica.seats.running + replica.seats.waiting == 0)
        assert await figures(url) == (0, 0)


@pytest.mark.parametrize("body", [STREAM, WHOLE])
async def test_client_that_leaves_frees_its_seat(body):
    replica = engine(STEADY, max_num_seqs=1)
    async with serving(replica) as url:
        upstream = Upstream(url)
        first = asyncio.create_task(upstream.post(CHAT, body))
        await until(lambda: replica.seats.running == 1)
        second = asyncio.create_task(upstream.post(CHAT, body))
        await until(lambda: replica.seats.waiting == 1)
        if body is STREAM:
            (await second).close()
        second.cancel()  # leaves while it waits
        await until(lambda: replica.seats.waiting == 0)
        if body is STREAM:
            (await first).close()
        first.cancel()
        await until(lambda: replica.seats.running == 0)


async def test_waiting_requests_are_served_first_come_first_served():
    seats = Seats(1)
    order = []

    async def take(name: int) -> None:
        async with seats.seat():
            order.append(name)
            await asyncio.sleep(0)

    async with seats.seat():
        tasks = [asyncio.create_task(take(i)) for i in range(6)]
        await until(lambda: seats.waiting == 6)
        tasks[2].cancel()
        await until(lambda: seats.waiting == 5)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3, 4, 5]
    assert (seats.running, seats.waiting) == (0, 0)


async def test_streams_of_a_full_replica_advance_together():
    """32 streams at a steady pace: each has its tokens when the last begins, none is starved."""
    async with serving(engine(Pace(0.01, 0.005))) as url:
        upstream = Upstream(url)
        exchanges = await asyncio.gather(*(upstream.post(CHAT, STREAM) for _ in range(32)))
        read = Counter()

        async def follow(i: int) -> None:
            while read[i] < 20:
                read[i] += (await exchanges[i].chunk()).count(b"\n\n")
            exchanges[i].close()

        await asyncio.gather(*(follow(i) for i in range(32)))
        assert all(count >= 20 for count in read.values())


async def test_finished_requests_and_tokens_are_counted():
    async with serving(engine()) as url:
        upstream = Upstream(url)
        for body in (b'{"prompt":"pod","max_tokens":3}', b'{"prompt":"pod"}'):
            await (await upstream.post("/v1/completions", body)).read()
        text = (await get(url, "/metrics"))[1].decode()
    assert 'vllm:request_success_total{engine="0",finished_reason="length",model_name="mistral"} 1.0' in text
    assert 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="mistral"} 1.0' in text
    assert gauge(text, "vllm:generation_tokens_total") == 3 + len(["A", " pod", " is", " a", " group", ".", "end"])
    assert gauge(text, "vllm:prompt_tokens_total") == 4


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_the_process_cleanly_with_streams_open(sig, tmp_path):
    qa = tmp_path / "qa.json"
    qa.write_text(json.dumps([{"question": "long story", "answer": LONG_ANSWER}]))
    async with engine_process("--qa", str(qa), "--ttft-ms", "0") as replica:
        upstream = Upstream(replica.url)
        exchanges = [await upstream.post(CHAT, STREAM) for _ in range(3)]
        for exchange in exchanges:
            assert b"chat.completion.chunk" in await exchange.chunk()
        replica.send(sig)
        for exchange in exchanges:
            with pytest.raises(ConnectionLost):
                await exchange.read()
        assert await asyncio.wait_for(replica.process.wait(), 5) == 0
        with pytest.raises(ConnectFailed):
            await upstream.get("/health")


async def test_broken_question_file_is_named_and_ends_with_status_2(tmp_path, capfd):
    qa = tmp_path / "broken.json"
    qa.write_text('{"question": 1}')
    async with engine_process("--qa", str(qa)) as replica:
        assert await replica.process.wait() == 2
    assert "broken.json: expected a list" in capfd.readouterr().err
