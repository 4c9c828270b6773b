import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.answers import COMMENTS, FALLBACK, Entry, comment, last_user_text, pieces, read_entries, reply

ENTRIES = (
    Entry("What is a KV cache?", "Keys and values of earlier tokens.", ("kv cache",)),
    Entry("Why do Spot instances go away?", "EC2 wants them back.", ("spot", "interruption")),
    Entry("How does KEDA scale vLLM?", "From the queue length.", ("keda",)),
)


@pytest.mark.parametrize(
    ("question", "entry"),
    [
        ("what's the KV-cache for?", 0),
        ("Tell me about SPOT please", 1),
        ("instances that go away: why?", 1),
        ("does keda work with spot, and how does it scale?", 2),
    ],
)
def test_best_fitting_entry_answers(question, entry):
    assert reply(question, ENTRIES) == ENTRIES[entry].answer


def test_unknown_question_gets_a_text_that_says_it_is_a_rehearsal():
    assert reply("Who won the match?", ENTRIES) == FALLBACK
    assert reply("anything", ()) == FALLBACK
    assert "rehearsal" in FALLBACK


def test_keyword_inside_a_longer_word_does_not_count():
    assert reply("spotlight", ENTRIES) == FALLBACK


@given(st.text())
def test_pieces_join_to_the_text(text):
    assert "".join(pieces(text)) == text


def test_pieces_carry_their_leading_space():
    assert pieces("A pod is, well, small.") == ["A", " pod", " is", ",", " well", ",", " small", "."]


def test_seed_chooses_among_answers_that_fit_as_well():
    twice = (Entry("What is a pod?", "A group.", ("pod",)), Entry("What is a pod?", "A unit.", ("pod",)))
    assert {reply("pod?", twice, seed) for seed in range(4)} == {"A group.", "A unit."}
    assert reply("pod?", twice, 3) == reply("pod?", twice, 3)
    assert reply("pod?", twice) == "A group."
    prompt = "[comment]\nChoice: b"
    assert {reply(prompt, (), seed) for seed in range(len(COMMENTS))} == {c.format(choice="“b”") for c in COMMENTS}


def test_comment_names_the_choice_and_nothing_of_the_solution():
    prompt = "[comment]\nQuestion: What is {0}?\nChoice: 32 {seats} % sure\nWrite a short comment."
    assert "“32 {seats} % sure”" in reply(prompt, ENTRIES)
    for text in COMMENTS:
        assert not any(word in text.lower() for word in ("right", "wrong", "correct", "good", "great"))


def test_comments_differ_between_prompts_and_not_between_calls():
    texts = {comment(f"Question: {i}\nChoice: b") for i in range(50)}
    assert texts == {comment(f"Question: {i}\nChoice: b") for i in range(50)}
    assert len(texts) == len(COMMENTS)


@pytest.mark.parametrize("prompt", ["[comment]", "[comment]\nChoice:   \nx", "[comment]\r\nno choice"])
def test_comment_without_a_choice_is_still_friendly(prompt):
    assert reply(prompt, ENTRIES).startswith("Thanks for your answer!")


def test_last_user_message_counts_and_parts_are_joined():
    messages = [
        {"role": "user", "content": "first"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}],
        },
        {"role": "assistant", "content": "no"},
    ]
    assert last_user_text(messages) == "a\n\nb"
    assert last_user_text([{"role": "system", "content": "x"}]) == ""


def test_entries_are_read_and_other_json_is_refused():
    assert read_entries('[{"question":"q","answer":"a","keywords":["k"]},{"question":"q","answer":"a"}]') == (
        Entry("q", "a", ("k",)),
        Entry("q", "a"),
    )
    for text in ("{}", "[1]", '[{"question":"q"}]', "nonsense"):
        with pytest.raises(ValueError):
            read_entries(text)
