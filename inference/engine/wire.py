"""The shapes of vLLM 0.32's answers and errors, field by field as recorded from the real server. Pure."""

from __future__ import annotations

import json
from json.encoder import encode_basestring  # type: ignore[attr-defined]
from typing import Any

from inference.asgi import Headers, dumps

FINGERPRINT = "crowdspike-sim-1"
DONE = b"data: [DONE]\n\n"
Json = dict[str, Any]
_GAP = "\0"  # where a token's text goes; no id and no model name can contain it


class ApiError(Exception):
    """An answer that refuses the request, in vLLM's shape."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


class Refused(Exception):
    """An answer of the web framework under vLLM's: its `body` has another shape."""

    def __init__(self, status: int, detail: str, headers: Headers | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"detail": detail}
        self.headers = headers


def event(payload: Json) -> bytes:
    return b"data: " + dumps(payload) + b"\n\n"


def error_event(error: ApiError) -> bytes:
    """An error in a stream that has begun; vLLM puts spaces into this JSON."""
    return b"data: " + json.dumps(error.body).encode() + b"\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


class Stream:
    """The events of one streamed answer. Those of its tokens are a constant beginning, a text and a constant end."""

    def __init__(
        self, answer: Chat | Completion, prompt_tokens: int, *, include_usage: bool, continuous_usage: bool
    ) -> None:
        self._answer = answer
        self._prompt_tokens = prompt_tokens
        self._include_usage = include_usage
        self._continuous = include_usage and continuous_usage
        self._begin, self._end = event(answer.token(_GAP)).split(b'"\\u0000"')

    def opening(self) -> bytes:
        """What comes before the first token."""
        return self._answer.opening(self._answer.counts(self._prompt_tokens, 0) if self._continuous else None)

    def token(self, text: str, count: int) -> bytes:
        """`count` is how many tokens there are with this one."""
        end = self._end
        if self._continuous:
            counts = dumps(self._answer.counts(self._prompt_tokens, count))
            end = b'%b,"usage":%b}\n\n' % (end[:-3], counts)
        return self._begin + encode_basestring(text).encode("utf-8", "replace") + end

    def last(self, text: str, count: int, finish_reason: str, stop_reason: str | None) -> bytes:
        """The last token and all that follows it."""
        chunk = self._answer.token(text, finish_reason, stop_reason)
        if self._continuous:
            chunk["usage"] = self._answer.counts(self._prompt_tokens, count)
        if not self._include_usage:
            return event({**chunk, "system_fingerprint": self._answer.fingerprint}) + DONE
        final = {
            **self._answer.usage(usage(self._prompt_tokens, count)),
            "system_fingerprint": self._answer.fingerprint,
        }
        return event(chunk) + event(final) + DONE


class Chat:
    """`/v1/chat/completions`."""

    def __init__(self, request_id: str, created: int, model: str, fingerprint: str = FINGERPRINT) -> None:
        self.id = f"chatcmpl-{request_id}"
        self.fingerprint = fingerprint
        self._chunk = {"id": self.id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._whole = {"id": self.id, "object": "chat.completion", "created": created, "model": model}

    def opening(self, counts: Json | None) -> bytes:
        """The chunk that only names the role: it carries no token."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        use = {"usage": counts} if counts else {}
        return event({**self._chunk, "choices": [choice], **use, "prompt_token_ids": None, "prompt_text": None})

    def token(self, text: str, finish_reason: str | None = None, stop_reason: str | None = None) -> Json:
        choice: Json = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
        if finish_reason:
            choice["stop_reason"] = stop_reason
        choice["token_ids"] = None
        return {**self._chunk, "choices": [choice]}

    def counts(self, prompt_tokens: int, completion_tokens: int) -> Json:
        """The usage that goes along with each token."""
        return {**usage(prompt_tokens, completion_tokens), "completion_tokens_details": None}

    def usage(self, counts: Json) -> Json:
        return {**self._chunk, "choices": [], "usage": counts}

    def whole(self, text: str, finish_reason: str, stop_reason: str | None, counts: Json) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None}
        choice = {
            "index": 0,
            "message": {**message, "function_call": None, "reasoning": None},
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": stop_reason,
            "token_ids": None,
            "routed_experts": None,
        }
        return {
            **self._whole,
            "choices": [choice],
            **_tail(self.fingerprint, counts),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            **_end(),
        }


class Completion:
    """`/v1/completions`."""

    def __init__(self, request_id: str, created: int, model: str, fingerprint: str = FINGERPRINT) -> None:
        self.id = f"cmpl-{request_id}"
        self.fingerprint = fingerprint
        self._head = {"id": self.id, "object": "text_completion", "created": created, "model": model}

    def opening(self, counts: Json | None) -> bytes:
        return b""

    def token(self, text: str, finish_reason: str | None = None, stop_reason: str | None = None) -> Json:
        choice = {
            "index": 0,
            "text": text,
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": stop_reason,
            "prompt_token_ids": None,
            "token_ids": None,
        }
        return {**self._head, "choices": [choice]}

    def counts(self, prompt_tokens: int, completion_tokens: int) -> Json:
        return usage(prompt_tokens, completion_tokens)

    def usage(self, counts: Json) -> Json:
        return {**self._head, "choices": [], "usage": counts}

    def whole(self, text: str, finish_reason: str, stop_reason: str | None, counts: Json) -> Json:
        choice = {
            "index": 0,
            "text": text,
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": stop_reason,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "routed_experts": None,
        }
        return {**self._head, "choices": [choice], **_tail(self.fingerprint, counts), **_end()}


def models(model: str, created: int, permission_id: str, max_model_len: int) -> Json:
    permission = {
        "id": f"modelperm-{permission_id}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card = {"id": model, "object": "model", "created": created, "owned_by": "vllm", "root": model, "parent": None}
    return {"object": "list", "data": [{**card, "max_model_len": max_model_len, "permission": [permission]}]}


def _tail(fingerprint: str, counts: Json) -> Json:
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    return {"service_tier": None, "system_fingerprint": fingerprint, "usage": {**counts, **details}}


def _end() -> Json:
    return {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
