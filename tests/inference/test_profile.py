import random
from dataclasses import replace

import pytest

from inference.engine import profile as profiles
from inference.engine.profile import FIGURES, ProfileError, dump, load, names, parse
from inference.engine.scheduler import Batch
from inference.engine.server import tokens_per_s

A10G = "a10g-mistral-7b-awq"


@pytest.mark.parametrize("name", names())
def test_profile_that_comes_along_is_named_as_its_file_and_cites_each_figure(name):
    profile = load(name)
    assert profile.name == name
    for field in FIGURES:
        figure = getattr(profile, field)
        assert len(figure.source) > 5, field
        assert figure.date[:2] == "20", field


@pytest.mark.parametrize("name", names())
def test_written_profile_is_read_again_as_it_was(name):
    profile = load(name)
    assert parse(dump(profile), name) == profile


def test_step_takes_the_sum_of_its_parts():
    values = {
        "step_base_ms": 10,
        "step_per_decode_ms": 0.5,
        "step_per_prefill_token_ms": 0.1,
        "step_per_context_token_us": 2,
        "step_jitter": 0,
    }
    profile = load(A10G).with_values(values, "a test", "2026-11-21")
    batch = Batch(prefill_tokens=100, decode_seqs=4, context_tokens=1000)
    assert profile.mean_step_s(batch) == pytest.approx((10 + 2 + 10 + 2) / 1000)
    assert profile.step_s(batch, random.Random(1)) == pytest.approx(profile.mean_step_s(batch))


def test_jitter_spreads_steps_around_their_median():
    profile = load(A10G).with_values({"step_jitter": 0.1}, "a test", "2026-11-21")
    batch, rng = Batch(decode_seqs=1), random.Random(1)
    times = sorted(profile.step_s(batch, rng) for _ in range(2001))
    assert times[1000] == pytest.approx(profile.mean_step_s(batch), rel=0.02)
    assert times[int(2001 * 0.841)] / times[1000] == pytest.approx(1.105, rel=0.02)


def test_a10g_is_as_fast_as_its_sources_say():
    one = 1 / load(A10G).mean_step_s(Batch(decode_seqs=1, context_tokens=150))
    assert 83 <= one <= 103
    assert 1400 <= tokens_per_s(load(A10G)) <= 1700


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("value: 9.5", "value: fast"), ":7: step_base_ms: value must be a number of 0 or more, not 'fast'"),
        (("value: 9.5", "value: -1"), "step_base_ms: value must be a number"),
        (("value: 9.5", "value: 0"), "step_base_ms: must be above 0"),
        (("step_jitter:", "step_noise:"), "step_noise: no such field; there are about, async_scheduling"),
        (("value: 4096", "value: 4096.5"), "max_model_len: value must be a whole number above 0"),
        (("value: 8200", "value: 200"), "the KV cache must hold at least one request of max_model_len tokens"),
        (("async_scheduling: true", "async_scheduling: often"), "async_scheduling: must be true or false"),
        (("async_scheduling: true\n", ""), "async_scheduling: is missing"),
        (("name: a10g", "name: [a10g"), "not YAML"),
    ],
)
def test_broken_profile_is_refused_with_its_line_and_what_would_be_right(change, said):
    text = (profiles.FOLDER / f"{A10G}.yaml").read_text()
    assert change[0] in text
    with pytest.raises(ProfileError, match=r"^mine") as refused:
        parse(text.replace(*change, 1), "mine.yaml")
    assert said in str(refused.value)


def test_figure_without_a_source_is_refused():
    profile = load(A10G)
    text = dump(replace(profile, step_jitter=replace(profile.step_jitter, source=" ")))
    with pytest.raises(ProfileError, match="step_jitter: source must say where the value comes from"):
        parse(text, "mine.yaml")


@pytest.mark.parametrize("text", ["", "[]", "just words"])
def test_text_that_is_no_profile_is_refused(text):
    with pytest.raises(ProfileError, match="expected fields"):
        parse(text, "mine.yaml")


def test_unknown_name_tells_the_known_ones():
    with pytest.raises(ProfileError, match=r"no profile 'h100'.*a10g-mistral-7b-awq"):
        load("h100")
