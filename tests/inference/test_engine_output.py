import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.answers import pieces
from inference.engine.output import Limits, output

WORDS = ("A", " pod", " is", " small", ".")


def stepwise(words, limits: Limits):
    """The same as vLLM works it out: one token after another, looking for a stop string in what each adds."""
    texts, text, reason, hit = [], "", "length", None
    source = [*words, ""] if not limits.ignore_eos else [*words, *([f" {words[0]}", *words[1:]] * limits.max_tokens)]
    if not limits.ignore_eos and len(words) < limits.min_tokens:
        again = [f" {words[0]}", *words[1:]] * limits.min_tokens
        source = [*words, *again[: limits.min_tokens - len(words)], ""]
    shown = 0
    for i, piece in enumerate(source[: limits.max_tokens]):
        before, text = len(text), text + piece
        ended = i == len(source) - 1 and not limits.ignore_eos
        if i + 1 > limits.min_tokens and piece:
            found = []
            for order, stop in enumerate(limits.stop):
                at = text.find(stop, max(0, before - len(stop) + 1))
                if at >= 0:
                    found.append((at + len(stop), order, stop))
            if found:
                end, _, hit = min(found)
                text = text[: end if limits.include_stop else end - len(hit)]
        last = ended or hit is not None or i + 1 == limits.max_tokens
        held = 0 if last or limits.include_stop or not limits.stop else max(map(len, limits.stop)) - 1
        until = max(shown, len(text) - held)
        texts.append(text[shown:until])
        shown = until
        if last:
            reason = "stop" if ended or hit is not None else "length"
            break
    return texts, reason, hit


def test_natural_end_is_a_token_without_text():
    found = output(WORDS, Limits(max_tokens=100))
    assert found.texts == [*WORDS, ""]
    assert (found.finish_reason, found.stop_reason) == ("stop", None)


@pytest.mark.parametrize(("most", "reason"), [(1, "length"), (5, "length"), (6, "stop")])
def test_no_more_than_max_tokens_come(most, reason):
    found = output(WORDS, Limits(max_tokens=most))
    assert found.texts == [*WORDS, ""][:most]
    assert found.finish_reason == reason


def test_text_goes_on_where_the_end_is_ignored():
    found = output(WORDS, Limits(max_tokens=12, ignore_eos=True))
    assert "".join(found.texts) == "A pod is small. A pod is small. A pod"
    assert (len(found.texts), found.finish_reason) == (12, "length")


def test_text_goes_on_until_min_tokens():
    found = output(WORDS, Limits(max_tokens=100, min_tokens=7))
    assert "".join(found.texts) == "A pod is small. A pod"
    assert (len(found.texts), found.finish_reason) == (8, "stop")


@pytest.mark.parametrize(("include", "text"), [(False, "A pod is"), (True, "A pod is sma")])
def test_text_ends_before_a_stop_string_or_with_it(include, text):
    found = output(WORDS, Limits(max_tokens=100, stop=("never", " sma"), include_stop=include))
    assert "".join(found.texts) == text
    assert (found.finish_reason, found.stop_reason, len(found.texts)) == ("stop", " sma", 4)


def test_what_may_begin_a_stop_string_is_held_back():
    found = output(WORDS, Limits(max_tokens=100, stop=("is big",)))
    assert found.texts == ["", "", "A p", "od is ", "s", "mall."]


def test_stop_string_before_min_tokens_does_not_count():
    found = output(WORDS, Limits(max_tokens=100, min_tokens=3, stop=("pod",)))
    assert found.finish_reason == "stop"
    assert (found.stop_reason, "".join(found.texts)) == (None, "A pod is small.")


words = st.text("ab. ", min_size=1, max_size=30).map(pieces).filter(bool)
limits = st.builds(
    Limits,
    max_tokens=st.integers(1, 40),
    ignore_eos=st.booleans(),
    stop=st.lists(st.text("ab. ", min_size=1, max_size=4), max_size=4).map(tuple),
    include_stop=st.booleans(),
).flatmap(
    lambda some: st.builds(
        Limits,
        max_tokens=st.just(some.max_tokens),
        min_tokens=st.integers(0, some.max_tokens),
        ignore_eos=st.just(some.ignore_eos),
        stop=st.just(some.stop),
        include_stop=st.just(some.include_stop),
    )
)


@given(words, limits)
def test_any_output_is_what_one_token_after_another_gives(said, some):
    found = output(said, some)
    assert (found.texts, found.finish_reason, found.stop_reason) == stepwise(said, some)
