"""What the room's responses ask of the LLM. Pure: OpenAI chat bodies out.

The solution of a question is never in a prompt, so that no model can give it away by repeating it.
"""

from __future__ import annotations

from typing import Any

from webapp.talk.model import Quiz, Talk

COMMENT_MAX_TOKENS = 80
ANSWER_MAX_TOKENS = 256


def comment(talk: Talk, quiz: Quiz, choice: tuple[str, ...]) -> dict[str, Any]:
    """A short personal comment on a choice, for the time before the solution is shown."""
    options = "\n".join(f"- {o.text}" for o in quiz.options)
    chosen = "; ".join(o.text for o in quiz.options if o.id in choice)
    user = (
        "[comment]\n"
        f"Question: {quiz.title}\n"
        f"Options:\n{options}\n"
        f"Choice: {chosen}\n"
        "Write one or two friendly sentences to the person who made this choice. The solution is shown later: do not "
        "say or hint whether the choice is right or wrong, and do not name another option."
    )
    return _chat(talk, user, COMMENT_MAX_TOKENS)


def answer(talk: Talk, question: str) -> dict[str, Any]:
    """An answer to a question from the room."""
    return _chat(talk, question, ANSWER_MAX_TOKENS)


def _chat(talk: Talk, user: str, max_tokens: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "system", "content": talk.persona}, {"role": "user", "content": user}],
        "max_tokens": max_tokens,
        "temperature": 0.7,
        "stream": True,
    }
