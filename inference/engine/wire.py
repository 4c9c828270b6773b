"""The shapes of vLLM 0.32's answers and errors, field by field as recorded from the real server. Pure."""

from __future__ import annotations

from typing import Any

from inference.asgi import dumps

FINGERPRINT = "crowdspike-sim-1"
DONE = b"data: [DONE]\n\n"
Json = dict[str, Any]


class ApiError(Exception):
    """An answer that refuses the request, in vLLM's shape."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def event(payload: Json) -> bytes:
    return b"data: " + dumps(payload) + b"\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


class Chat:
    """`/v1/chat/completions`."""

    def __init__(self, request_id: str, created: int, model: str) -> None:
        self.id = f"chatcmpl-{request_id}"
        self._chunk = {"id": self.id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._whole = {"id": self.id, "object": "chat.completion", "created": created, "model": model}

    def opening(self) -> Json | None:
        """The chunk that only names the role: it carries no token."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return {**self._chunk, "choices": [choice], "prompt_token_ids": None, "prompt_text": None}

    def token(self, text: str, finish_reason: str | None = None) -> Json:
        choice: Json = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
        if finish_reason:
            choice["stop_reason"] = None
        choice["token_ids"] = None
        return {**self._chunk, "choices": [choice]}

    def usage(self, counts: Json) -> Json:
        return {**self._chunk, "choices": [], "usage": counts}

    def whole(self, text: str, finish_reason: str, counts: Json) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None}
        choice = {
            "index": 0,
            "message": {**message, "function_call": None, "reasoning": None},
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": None,
            "token_ids": None,
            "routed_experts": None,
        }
        return {
            **self._whole,
            "choices": [choice],
            **_tail(counts),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            **_end(),
        }


class Completion:
    """`/v1/completions`."""

    def __init__(self, request_id: str, created: int, model: str) -> None:
        self.id = f"cmpl-{request_id}"
        self._head = {"id": self.id, "object": "text_completion", "created": created, "model": model}

    def opening(self) -> Json | None:
        return None

    def token(self, text: str, finish_reason: str | None = None) -> Json:
        choice = {
            "index": 0,
            "text": text,
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": None,
            "prompt_token_ids": None,
            "token_ids": None,
        }
        return {**self._head, "choices": [choice]}

    def usage(self, counts: Json) -> Json:
        return {**self._head, "choices": [], "usage": counts}

    def whole(self, text: str, finish_reason: str, counts: Json) -> Json:
        choice = {
            "index": 0,
            "text": text,
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": None,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "routed_experts": None,
        }
        return {**self._head, "choices": [choice], **_tail(counts), **_end()}


def models(model: str, created: int, max_model_len: int) -> Json:
    permission = {
        "id": f"modelperm-{model}",
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


def _tail(counts: Json) -> Json:
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    return {"service_tier": None, "system_fingerprint": FINGERPRINT, "usage": {**counts, **details}}


def _end() -> Json:
    return {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
