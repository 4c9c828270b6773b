"""The least that Locust can do: fast users who post the same bytes again and again."""

from __future__ import annotations

import os

from locust import FastHttpUser, task

BODY = os.environ["BODY"].encode()
HEADERS = {"content-type": "application/json"}


class Bare(FastHttpUser):
    @task
    def ask(self) -> None:
        self.client.post("/v1/chat/completions", data=BODY, headers=HEADERS)
