"""HTTP to the API server: list, watch, patch, delete, and what its answers mean.

kr8s finds the server, signs in (kubeconfig with exec plugins, service account) and sends the requests. Its own watch is
not used: it neither lists first nor takes bookmarks nor resumes, and it cuts lines where JSON does not end.

    ApiError
    ├── Unreachable     no connection, silence, half an answer, 5xx, 429: may pass
    │   ├── Silent      no answer in time
    │   ├── Expired     410, or a version from the future: list again
    │   └── SignedOut   a watch met a 401; signed in again since
    ├── Missing         404: there is no such resource
    └── Refused         403: a right is missing; 401 though just signed in
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import kr8s
import kr8s.asyncio

from inference.cluster.cluster import NoCluster
from inference.cluster.kubernetes.objects import NOTHING, Object

SIGN_IN_TIMEOUT_S = 30.0  # an exec plugin may ask a cloud for a token first
ANSWER_TIMEOUT_S = 10.0
PAGE = 500
MERGE_PATCH = {"content-type": "application/merge-patch+json"}


class ApiError(Exception):
    pass


class Unreachable(ApiError):
    pass


class Silent(Unreachable):
    pass


class Expired(Unreachable):
    pass


class SignedOut(Unreachable):
    pass


class Missing(ApiError):
    pass


class Refused(ApiError):
    pass


class NoCredentials(NoCluster):
    """Neither a kubeconfig nor a service account leads to an API server, or the kubeconfig's plugin fails."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What to list and watch. `version` is `v1` or `group/version`; `namespace` None for what belongs to none."""

    version: str
    plural: str
    namespace: str | None = None
    label_selector: str = ""
    field_selector: str = ""

    def __str__(self) -> str:
        group, slash, _ = self.version.rpartition("/")
        return f"{self.plural}.{group}" if slash else self.plural

    @property
    def parameters(self) -> dict[str, str]:
        both = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {key: value for key, value in both.items() if value}


class Api:
    """One API server. `kubeconfig` and `context` as for kubectl; without them the pod's service account serves."""

    def __init__(self, kubeconfig: str | None = None, context: str | None = None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._client: kr8s.asyncio.Api | None = None
        self._signing_in = asyncio.Lock()
        self._signed_in = 0

    async def sign_in(self) -> None:
        """Raises NoCredentials, Unreachable, Refused. Called by itself when it has not been."""
        async with self._signing_in:
            if self._client is None:
                self._client = await self._guarded(kr8s.asyncio.api(kubeconfig=self._kubeconfig, context=self._context))

    async def close(self) -> None:
        session = self._client._session if self._client else None  # kr8s itself has no way to close it
        if session is not None:
            await session.aclose()

    async def list(self, resource: Resource) -> tuple[list[Object], str]:
        """All objects, page by page, and the version from which to watch. Raises ApiError."""
        objects: list[Object] = []
        more = ""
        while True:
            parameters = {**resource.parameters, "limit": str(PAGE), **({"continue": more} if more else {})}
            page = await self._request("GET", resource, params=parameters)
            objects += page.get("items") or ()
            metadata = page.get("metadata", NOTHING)
            more = metadata.get("continue") or ""
            if not more:
                return objects, metadata.get("resourceVersion", "")

    async def watch(
        self,
        resource: Resource,
        version: str,
        on_open: Callable[[], None],
        on_event: Callable[[str, Object], None],
        lasting_s: float,
        patience_s: float,
    ) -> None:
        """Hand each event's type and object to `on_event` until the server ends the watch, as it is asked to do after
        `lasting_s`. When it has said nothing for `patience_s` longer than that, it is gone. Raises ApiError."""
        parameters = {
            **resource.parameters,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(lasting_s))),
        }
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, read=lasting_s + patience_s)
        signed_in = self._signed_in
        try:
            await self._watch(resource, parameters, timeout, on_open, on_event)
        except kr8s.APITimeoutError as error:
            raise Silent(_said(error)) from error
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            raise Unreachable(_said(error)) from error
        except SignedOut:
            await self._sign_in_again(signed_in)
            raise

    async def _watch(
        self,
        resource: Resource,
        parameters: Mapping[str, str],
        timeout: httpx.Timeout,
        on_open: Callable[[], None],
        on_event: Callable[[str, Object], None],
    ) -> None:
        async with self._call("GET", resource, "", stream=True, params=parameters, timeout=timeout) as response:
            if response.is_error:
                await response.aread()
                if response.status_code == 401:
                    raise SignedOut("the token is no longer valid")
                _check(response)
            on_open()
            rest = b""
            # Lines end with \n alone: text that is split wherever Unicode may end a line is cut within strings.
            async for data in response.aiter_bytes():
                *lines, rest = (rest + data).split(b"\n")
                for event in (json.loads(line) for line in lines if line):
                    if event["type"] == "ERROR":
                        raise _error(event["object"].get("code", 500), event["object"])
                    on_event(event["type"], event["object"])
            if rest:
                raise Unreachable("the connection was cut within a line")

    async def patch(self, resource: Resource, name: str, change: Mapping[str, Any]) -> None:
        """Merge `change` into an object. Raises ApiError."""
        body = json.dumps(change)
        await self._request("PATCH", resource, f"/{name}", content=body, headers=MERGE_PATCH)

    async def delete(self, resource: Resource, name: str, grace_s: int) -> None:
        """Raises ApiError."""
        body = json.dumps({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace_s})
        await self._request("DELETE", resource, f"/{name}", content=body)

    async def _request(self, method: str, resource: Resource, below: str = "", **parts: Any) -> Object:
        for last in (False, True):
            if self._client is None:
                await self.sign_in()
            signed_in = self._signed_in
            try:
                async with self._call(method, resource, below, timeout=ANSWER_TIMEOUT_S, **parts) as response:
                    if response.status_code != 401 or last:
                        _check(response)
                        return response.json()
            except kr8s.APITimeoutError as error:
                raise Silent(_said(error)) from error
            except (httpx.HTTPError, json.JSONDecodeError) as error:
                raise Unreachable(_said(error)) from error
            await self._sign_in_again(signed_in)
        raise AssertionError("unreachable")

    def _call(self, method: str, resource: Resource, below: str, **parts: Any) -> Any:
        """Without kr8s' own check of the status: it signs in thrice for each 403, and cuts all watches in doing so."""
        assert self._client is not None, "signed in before"
        return self._client.call_api(
            method,
            version=resource.version,
            namespace=resource.namespace,
            url=f"{resource.plural}{below}",
            raise_for_status=False,
            **parts,
        )

    async def _sign_in_again(self, signed_in: int) -> None:
        """After a 401: tokens live for minutes (EKS) to an hour. One of all that have met it does it for all."""
        async with self._signing_in:
            if self._client is not None and signed_in == self._signed_in:
                self._signed_in += 1
                await self._guarded(self._client.version())  # signs in again when it is refused

    async def _guarded(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(SIGN_IN_TIMEOUT_S):
                return await call
        except kr8s.ServerError as error:
            status = error.response.status_code if error.response is not None else 0
            raise (Refused if status in (401, 403) else Unreachable)(_said(error)) from error
        except (httpx.HTTPError, kr8s.APITimeoutError, TimeoutError) as error:
            raise Unreachable(_said(error)) from error
        except (ValueError, LookupError, OSError, RuntimeError) as error:
            raise NoCredentials(f"no way to a Kubernetes API server: {_said(error)}") from error


def _check(response: httpx.Response) -> None:
    if response.is_error:
        try:
            status = response.json()
        except ValueError:
            status = NOTHING
        raise _error(response.status_code, status if isinstance(status, dict) else NOTHING)


def _error(code: int, status: Object) -> ApiError:
    """Of an answer's code and its `Status` object."""
    message = status.get("message") or f"it answered {code}"
    causes = (status.get("details") or NOTHING).get("causes") or ()
    if code == 410 or any(cause.get("reason") == "ResourceVersionTooLarge" for cause in causes):
        return Expired(message)
    if code in (401, 403):
        return Refused(message)
    if code == 404:
        return Missing(message)
    return Unreachable(message)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
