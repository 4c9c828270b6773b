"""OpenAI's official client through the gateway: to the simulated replica, and to a real vLLM where
CROWDSPIKE_TEST_VLLM_URL names one."""

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import openai
import pytest

from inference.pool import Pool
from tests.inference.servers import STEADY, engine, serving, until
from webapp.gateway import keys
from webapp.gateway.asgi import GatewayApp
from webapp.gateway.caps import Caps
from webapp.gateway.gateway import Gateway
from webapp.gateway.keys import Keyring
from webapp.gateway.line import Limits
from webapp.gateway.quota import Quota
from webapp.log.memory import MemoryStore

VLLM_URL = os.environ.get("CROWDSPIKE_TEST_VLLM_URL", "").rstrip("/").removesuffix("/v1")
CAPS = Caps(max_tokens=256)
STORY = [{"role": "user", "content": "Tell me a long story."}]
UNREACHABLE = "http://127.0.0.1:9"
STATUS_OF = {
    openai.BadRequestError: 400,
    openai.AuthenticationError: 401,
    openai.NotFoundError: 404,
    openai.RateLimitError: 429,
    openai.InternalServerError: 503,
}


@dataclass
class Served:
    """The gateway with a key that has no limits, one that may ask once a minute, and the replica's model."""

    url: str
    key: str
    spent_key: str
    model: str
    gateway: Gateway

    @property
    def options(self) -> dict:
        return {"base_url": f"{self.url}/v1", "api_key": self.key, "max_retries": 0, "timeout": 60}


@asynccontextmanager
async def front_of(*urls: str, limits: Limits | None = None):
    store, quota = MemoryStore(), Quota()
    key, spent_key = await keys.add(store, "any", 1), await keys.add(store, "once", 1, requests_per_minute=1)
    keyring = Keyring(store)
    await keyring.start()
    pool = Pool(urls, check_every_s=0.05)
    await pool.start()
    gateway = Gateway(pool, limits=limits, on_end=[quota.charge])
    try:
        async with serving(GatewayApp(gateway, CAPS, keyring, quota)) as url:
            yield Served(url, key, spent_key, next(iter(pool.models()), ""), gateway)
    finally:
        await pool.close()
        await keyring.close()


@pytest.fixture(params=["simulated", "vllm"] if VLLM_URL else ["simulated"])
async def replica(request):
    """A replica's URL; the simulated one says 200 tokens a second."""
    if request.param == "vllm":
        yield VLLM_URL
    else:
        async with serving(engine(STEADY)) as url:
            yield url


@pytest.fixture
async def served(replica):
    async with front_of(replica) as served:
        yield served


@pytest.fixture
async def client(served):
    async with openai.AsyncOpenAI(**served.options) as client:
        yield client


async def running(replica: str) -> float:
    """Requests that the replica works on, as its own metrics say."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{replica}/metrics")).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running"))


async def until_running(replica: str, holds) -> None:
    async with asyncio.timeout(10):
        while not holds(await running(replica)):
            pass


async def test_models_are_listed(client, served):
    assert [model.id for model in (await client.models.list()).data] == [served.model]


async def test_chat_is_answered_whole(client, served):
    answer = await client.chat.completions.create(model=served.model, messages=STORY, max_tokens=8)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


async def test_chat_streams_token_by_token(client, served):
    stream = await client.chat.completions.create(model=served.model, messages=STORY, max_tokens=8, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)


async def test_stream_counts_tokens_for_who_asks(client, served):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    stream = await client.chat.completions.create(model=served.model, messages=STORY, max_tokens=8, **options)
    *chunks, last = [chunk async for chunk in stream]
    assert (last.choices, last.usage.completion_tokens) == ([], 8)
    assert all(chunk.usage is None for chunk in chunks)


async def test_stream_and_whole_answer_say_the_same(client, served):
    same = {"model": served.model, "messages": STORY, "max_tokens": 8, "temperature": 0, "seed": 1}
    whole = await client.chat.completions.create(**same)
    stream = await client.chat.completions.create(**same, stream=True)
    assert "".join([c.choices[0].delta.content or "" async for c in stream]) == whole.choices[0].message.content


async def test_completions_are_answered_whole_and_streamed(client, served):
    same = {"model": served.model, "prompt": "Once upon a time", "max_tokens": 6, "temperature": 0, "seed": 1}
    whole = await client.completions.create(**same)
    assert (whole.object, whole.usage.completion_tokens) == ("text_completion", 6)
    stream = await client.completions.create(**same, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text


async def test_answer_without_a_limit_ends_at_the_cap(client, served):
    answer = await client.chat.completions.create(model=served.model, messages=STORY, extra_body={"ignore_eos": True})
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (CAPS.max_tokens, "length")


async def test_synchronous_client_works_too(served):
    def ask() -> tuple[list[str], int, bool]:
        with openai.OpenAI(**served.options) as client:
            names = [model.id for model in client.models.list()]
            whole = client.chat.completions.create(model=served.model, messages=STORY, max_tokens=5)
            with client.chat.completions.create(
                model=served.model, messages=STORY, max_tokens=5, stream=True
            ) as stream:
                ended = [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
            return names, whole.usage.completion_tokens, ended

    assert await asyncio.to_thread(ask) == ([served.model], 5, True)


async def test_stream_that_is_left_in_its_midst_ends_on_the_replica(client, served, replica):
    asked = {"model": served.model, "messages": STORY, "max_tokens": 256, "extra_body": {"ignore_eos": True}}
    async with await client.chat.completions.create(**asked, stream=True) as stream:
        await anext(aiter(stream))
        await until_running(replica, lambda count: count >= 1)
    await until_running(replica, lambda count: count == 0)
    await until(lambda: served.gateway.pool.replicas[0].in_flight == 0)


async def test_call_that_is_cancelled_ends_on_the_replica(client, served, replica):
    asked = {"model": served.model, "messages": STORY, "max_tokens": 256, "extra_body": {"ignore_eos": True}}
    asking = asyncio.create_task(client.chat.completions.create(**asked))
    await until_running(replica, lambda count: count >= 1)
    asking.cancel()
    await until_running(replica, lambda count: count == 0)


async def refusal(error: type[openai.APIStatusError], call) -> openai.APIStatusError:
    with pytest.raises(error) as caught:
        await call
    assert caught.value.status_code == STATUS_OF[error]
    assert caught.value.request_id
    assert caught.value.body.keys() == {"message", "type", "param", "code"}
    return caught.value


async def test_wrong_key_is_an_authentication_error(client, served):
    wrong = client.with_options(api_key="csk_wrong")
    for call in (wrong.models.list(), wrong.chat.completions.create(model=served.model, messages=STORY)):
        assert (await refusal(openai.AuthenticationError, call)).code == "invalid_api_key"


async def test_key_over_its_limit_is_a_rate_limit_error(client, served):
    once = client.with_options(api_key=served.spent_key)
    asked = {"model": served.model, "messages": STORY, "max_tokens": 1}
    raw = await once.chat.completions.with_raw_response.create(**asked)
    assert raw.headers["x-ratelimit-remaining-requests"] == "0"
    error = await refusal(openai.RateLimitError, once.chat.completions.create(**asked))
    assert error.type == "rate_limit_error"
    assert int(error.response.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"max_tokens": CAPS.max_tokens + 1}, "max_tokens"),
        ({"max_completion_tokens": CAPS.max_tokens + 1}, "max_completion_tokens"),
        ({"n": 2}, "n"),
        ({"messages": [{"role": "user", "content": "x" * (CAPS.prompt_chars + 1)}]}, "messages"),
        ({"max_tokens": -1}, "max_tokens"),  # the replica's own words
        ({"temperature": -1}, "temperature"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_request_that_is_wrong_is_a_bad_request_error_that_names_the_field(client, served, wrong, param):
    call = client.chat.completions.create(**{"model": served.model, "messages": STORY, **wrong})
    assert (await refusal(openai.BadRequestError, call)).param == param


async def test_model_or_path_that_is_not_there_is_a_not_found_error(client):
    call = client.chat.completions.create(model="nope", messages=STORY)
    assert "nope" in (await refusal(openai.NotFoundError, call)).message
    await refusal(openai.NotFoundError, client.embeddings.create(model="nope", input="x"))


async def test_no_replica_is_an_internal_server_error_that_may_be_tried_again():
    async with (
        front_of(UNREACHABLE, limits=Limits(max_wait_s=0.05)) as served,
        openai.AsyncOpenAI(**served.options) as client,
    ):
        for stream in (False, True):
            call = client.chat.completions.create(model="any", messages=STORY, stream=stream)
            error = await refusal(openai.InternalServerError, call)
            assert int(error.response.headers["retry-after"]) > 0
