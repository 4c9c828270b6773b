"""API keys: made, kept as hashes, found, revoked; and what each may use in a minute."""

import json

import pytest

from tests.inference.servers import until
from webapp.gateway import keys
from webapp.gateway.errors import NoKey, OverQuota
from webapp.gateway.keys import BadName, Key, Keyring, NoSuchKey
from webapp.gateway.quota import Quota
from webapp.gateway.record import Record
from webapp.log.memory import Fault, MemoryStore


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def ring_of(store: MemoryStore, **options) -> Keyring:
    ring = Keyring(store, **options)
    await ring.start()
    return ring


def opens(ring: Keyring, secret: str) -> bool:
    try:
        return bool(ring.find(f"Bearer {secret}"))
    except NoKey:
        return False


async def test_store_has_the_hash_and_never_the_key():
    store = MemoryStore()
    secret = await keys.add(store, "k6", 5, requests_per_minute=60)
    assert secret.startswith("csk_")
    assert len(secret) == 4 + 43  # 256 bits in base64
    [(place, body)] = store.objects.items()
    assert place == "server/keys/k6.json"
    assert secret.encode() not in body
    assert secret[4:].encode() not in body
    assert json.loads(body) == {"name": "k6", "hash": keys.digest(secret), "created_ms": 5, "requests_per_minute": 60}
    assert await keys.add(MemoryStore(), "k6", 5) != secret


async def test_key_is_found_however_the_scheme_is_written():
    store = MemoryStore()
    secret = await keys.add(store, "k6", 5, tokens_per_minute=9)
    ring = await ring_of(store)
    for header in (f"Bearer {secret}", f"bearer  {secret} "):
        assert ring.find(header) == Key("k6", keys.digest(secret), 5, None, 9)
    await ring.close()


async def test_anything_else_is_no_key():
    store = MemoryStore()
    secret = await keys.add(store, "k6", 5)
    stored = json.loads(store.objects["server/keys/k6.json"])["hash"]
    ring = await ring_of(store)
    headers = ["", "Bearer", "Bearer ", f"Basic {secret}", secret, f"Bearer {secret}x", f"Bearer {secret[:-1]}"]
    headers += [f"Bearer {stored}", "Bearer csk_\xff\xfe", f"Bearer {secret},Bearer {secret}"]
    for header in headers:
        with pytest.raises(NoKey) as caught:
            ring.find(header)
        error = json.loads(caught.value.body())["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert secret not in error["message"]
    await ring.close()


async def test_keys_that_are_made_or_revoked_take_effect_while_the_ring_runs():
    store = MemoryStore()
    first = await keys.add(store, "first", 1)
    ring = await ring_of(store, reread_every_s=0.01)
    assert opens(ring, first)
    second = await keys.add(store, "second", 2)
    await until(lambda: opens(ring, second))
    await keys.revoke(store, "first", 3)
    await until(lambda: not opens(ring, first))
    assert opens(ring, second)
    await ring.close()


async def test_last_known_keys_stay_while_the_store_fails():
    failures = 0

    async def hook(method: str, _: str) -> Fault | None:
        nonlocal failures
        failures += failing
        return Fault.REFUSED if failing else None

    failing = False
    store = MemoryStore(hook)
    secret = await keys.add(store, "k6", 1)
    ring = await ring_of(store, reread_every_s=0.01)
    failing = True
    await until(lambda: failures >= 3)
    assert opens(ring, secret)
    failing = False
    await keys.revoke(store, "k6", 2)
    await until(lambda: not opens(ring, secret))
    await ring.close()


async def test_revoked_key_keeps_its_name_and_its_date():
    store = MemoryStore()
    await keys.add(store, "k6", 1)
    await keys.revoke(store, "k6", 2)
    await keys.revoke(store, "k6", 3)
    [key] = await keys.read(store)
    assert (key.name, key.revoked_ms) == ("k6", 2)
    with pytest.raises(BadName, match="was a key 'k6'"):
        await keys.add(store, "k6", 4)
    with pytest.raises(NoSuchKey):
        await keys.revoke(store, "other", 4)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../secret", "a b", "ü", "x" * 65, "a\n"])
async def test_name_that_no_place_in_the_store_can_have_is_refused(name):
    store = MemoryStore()
    with pytest.raises(BadName):
        await keys.add(store, name, 1)
    with pytest.raises(BadName):
        await keys.revoke(store, name, 1)
    assert not store.objects


@pytest.mark.parametrize("broken", [b"{", b"[]", b"{}", b'{"name":"x","hash":7,"created_ms":1}', b"\xff"])
async def test_file_that_is_no_key_opens_nothing_and_disturbs_no_other(broken):
    store = MemoryStore()
    secret = await keys.add(store, "good", 1)
    await store.put("server/keys/broken.json", broken)
    ring = await ring_of(store)
    assert opens(ring, secret)
    assert [key.name for key in await keys.read(store)] == ["good"]
    await keys.revoke(store, "broken", 2)
    assert [key.revoked_ms for key in await keys.read(store)] == [2, None]
    await ring.close()


def used(name: str, prompt: int, completion: int) -> Record:
    return Record("r", "/v1/x", "api", 200, 1.0, key=name, prompt_tokens=prompt, completion_tokens=completion)


def test_requests_over_a_keys_limit_wait_for_the_end_of_its_minute():
    clock = Clock()
    quota, key = Quota(clock), Key("k6", "", 1, requests_per_minute=2)
    quota.admit(key)
    clock.now += 20
    quota.admit(key)
    with pytest.raises(OverQuota, match="2 requests a minute") as caught:
        quota.admit(key)
    assert caught.value.retry_after_s == 40
    clock.now += 39.5
    with pytest.raises(OverQuota) as caught:
        quota.admit(key)
    assert caught.value.retry_after_s == 1
    clock.now += 0.5
    quota.admit(key)


def test_tokens_are_charged_at_the_end_and_refuse_what_comes_after():
    clock = Clock()
    quota, key = Quota(clock), Key("k6", "", 1, tokens_per_minute=100)
    quota.admit(key)
    quota.charge(used("k6", 60, 39))
    quota.admit(key)  # one token is left
    quota.charge(used("k6", 1000, 5))
    with pytest.raises(OverQuota, match="100 tokens a minute") as caught:
        quota.admit(key)
    assert caught.value.retry_after_s == 60
    clock.now += 60
    quota.admit(key)


def test_request_that_is_refused_for_its_tokens_counts_as_none():
    quota, key = Quota(Clock()), Key("k6", "", 1, requests_per_minute=5, tokens_per_minute=1)
    quota.admit(key)
    quota.charge(used("k6", 1, 1))
    with pytest.raises(OverQuota):
        quota.admit(key)
    assert dict(quota.marks(key))[b"x-ratelimit-remaining-requests"] == b"4"


def test_keys_do_not_use_each_others_minute():
    quota = Quota(Clock())
    one, other = (Key(name, "", 1, requests_per_minute=1, tokens_per_minute=10) for name in ("one", "other"))
    quota.admit(one)
    quota.charge(used("one", 10, 10))
    quota.admit(other)
    quota.charge(used("nobody", 10, 10))
    quota.charge(Record("r", "/v1/x", "audience", 200, 1.0, prompt_tokens=99))  # without a key
    assert dict(quota.marks(other))[b"x-ratelimit-remaining-tokens"] == b"10"


def test_key_without_figures_has_no_limit_and_no_marks():
    quota, key = Quota(Clock()), Key("k6", "", 1)
    for _ in range(1000):
        quota.admit(key)
        quota.charge(used("k6", 10**9, 0))
    assert quota.marks(key) == []


def test_marks_say_what_is_left_under_openais_names():
    clock = Clock()
    quota, key = Quota(clock), Key("k6", "", 1, requests_per_minute=3, tokens_per_minute=100)
    assert dict(quota.marks(key))[b"x-ratelimit-reset-requests"] == b"0s"
    quota.admit(key)
    quota.charge(used("k6", 30, 3))
    clock.now += 10.5
    assert dict(quota.marks(key)) == {
        b"x-ratelimit-limit-requests": b"3",
        b"x-ratelimit-remaining-requests": b"2",
        b"x-ratelimit-reset-requests": b"50s",
        b"x-ratelimit-limit-tokens": b"100",
        b"x-ratelimit-remaining-tokens": b"67",
        b"x-ratelimit-reset-tokens": b"50s",
    }
