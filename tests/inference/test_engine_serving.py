import asyncio
from collections import Counter

import openai
import pytest

from inference.pool import RUNNING, WAITING, gauge
from inference.upstream import Upstream
from tests.inference.servers import (
    LONG_ANSWER,
    STEADY,
    STORY,
    engine,
    get,
    serving,
    until,
)

CHAT = "/v1/chat/completions"
STREAM = b'{"messages":[{"role":"user","content":"long story"}],"stream":true}'
POD = b'{"messages":[{"role":"user","content":"pod"}]}'
WHOLE = b'{"messages":[{"role":"user","content":"story"}]}'


async def figures(url: str) -> tuple[int, int]:
    _, body = await get(url, "/metrics")
    return gauge(body, RUNNING), gauge(body, WAITING)


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
        await until(lambda: replica.running + replica.waiting == 40)
        assert await figures(url) == (32, 8)
        for exchange in exchanges:
            exchange.close()
        await until(lambda: replica.running + replica.waiting == 0)
        assert await figures(url) == (0, 0)


@pytest.mark.parametrize("body", [STREAM, WHOLE])
async def test_client_that_leaves_frees_its_seat(body):
    replica = engine(STEADY, max_num_seqs=1)
    async with serving(replica) as url:
        upstream = Upstream(url)
        first = asyncio.create_task(upstream.post(CHAT, body))
        await until(lambda: replica.running == 1)
        second = asyncio.create_task(upstream.post(CHAT, body))
        await until(lambda: replica.waiting == 1)
        if body is STREAM:
            (await second).close()
        second.cancel()  # leaves while it waits
        await until(lambda: replica.waiting == 0)
        if body is STREAM:
            (await first).close()
        first.cancel()
        await until(lambda: replica.running == 0)


async def test_waiting_requests_are_served_first_come_first_served():
    replica = engine(STEADY, max_num_seqs=1)
    order = []

    async def ask(url: str, name: int) -> None:
        await (await Upstream(url).post(CHAT, POD)).read()
        order.append(name)

    async with serving(replica) as url:
        first = await Upstream(url).post(CHAT, STREAM)
        tasks = []
        for i in range(6):
            tasks.append(asyncio.create_task(ask(url, i)))
            await until(lambda: replica.waiting == len(tasks))
        tasks[2].cancel()
        await until(lambda: replica.waiting == 5)
        first.close()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3, 4, 5]
    assert (replica.running, replica.waiting, replica.unfinished) == (0, 0, 0)


async def test_streams_of_a_full_replica_advance_together():
    """32 streams at a steady pace: each has its tokens when the last begins, none is starved."""
    async with serving(engine(STEADY)) as url:
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
        page = (await get(url, "/metrics"))[1]
    text = page.decode()
    assert 'vllm:request_success_total{engine="0",finished_reason="length",model_name="mistral"} 1.0' in text
    assert 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="mistral"} 1.0' in text
    assert gauge(page, b"vllm:generation_tokens_total") == 3 + len(["A", " pod", " is", " a", " group", ".", "end"])
    assert gauge(page, b"vllm:prompt_tokens_total") == 4
