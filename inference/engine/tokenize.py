"""`/tokenize`: the tokens that a prompt or a conversation has here. Their ids are hashes, not Mistral's."""

from __future__ import annotations

from inference.engine import tokens
from inference.engine.fields import Fields, Json
from inference.engine.job import check_model, load, read_messages


def answer(body: bytes, model: str, max_model_len: int) -> Json:
    """vLLM's answer to a body with `prompt` or `messages`. Raises ApiError."""
    data = load(body)
    fields = Fields(data)
    chat = "messages" in data
    messages = read_messages(fields, data) if chat else []
    asked_model = fields.text("model")
    if not chat and "prompt" not in data:
        fields.missing("prompt")
        fields.missing("messages")
    prompt = "" if chat else fields.text("prompt") or ""
    wants_texts = fields.boolean("return_token_strs", nullable=True)
    special = fields.boolean("add_special_tokens") if "add_special_tokens" in data else True
    fields.check()
    check_model(asked_model, model)
    # For a conversation vLLM's chat template brings the first token; the option would add another.
    found = tokens.of_chat(messages) if chat else tokens.of_text(prompt, special)
    return {
        "count": len(found),
        "max_model_len": max_model_len,
        "tokens": tokens.ids(found),
        "token_strs": found if wants_texts else None,
    }
