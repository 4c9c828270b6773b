"""What a run needs of the API server beyond watching: to make things, to take them away, to read a pod's log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import kr8s

from inference.cluster.kubernetes import api
from inference.cluster.kubernetes.api import (
    ANSWER_TIMEOUT_S,
    Missing,
    Refused,
    Resource,
    SignedOut,
    Silent,
    Unreachable,
)
from inference.cluster.kubernetes.objects import Object

QUIET_S = 30.0
"""A log that says nothing for so long is asked for again: its connection may have died in silence."""
_JSON = {"content-type": "application/json"}
_REVIEWS = Resource("authorization.k8s.io/v1", "selfsubjectaccessreviews")


class Api(api.Api):
    @property
    def namespace(self) -> str:
        """The kubeconfig's, or the pod's own; once signed in."""
        assert self._client is not None, "signed in before"
        return self._client.namespace or "default"

    async def create(self, resource: Resource, it: Object, dry_run: bool = False) -> Object:
        """The object as it is then. `dry_run`: the server checks all and makes nothing. Raises ApiError."""
        parameters = {"dryRun": "All"} if dry_run else {}
        return await self._request("POST", resource, content=json.dumps(it), headers=_JSON, params=parameters)

    async def remove(self, resource: Resource, name: str) -> None:
        """With all that belongs to it; the server goes on with that by itself. Raises ApiError."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        await self._request("DELETE", resource, f"/{name}", content=json.dumps(options), headers=_JSON)

    async def may(self, verb: str, resource: Resource, below: str = "") -> bool:
        """Whether we have that right; `below` is a subresource. Raises ApiError."""
        group, _, _ = resource.version.rpartition("/")
        asked = {"namespace": resource.namespace, "verb": verb, "group": group, "resource": resource.plural}
        spec = {"resourceAttributes": {**asked, "subresource": below}}
        review = {"apiVersion": _REVIEWS.version, "kind": "SelfSubjectAccessReview", "spec": spec}
        return bool((await self.create(_REVIEWS, review)).get("status", {}).get("allowed"))

    async def log(self, pods: Resource, pod: str, parameters: dict[str, str]) -> AsyncIterator[bytes]:
        """Pieces of a pod's log as they come, until the server ends it. Raises ApiError."""
        if self._client is None:
            await self.sign_in()
        signed_in = self._signed_in
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, read=QUIET_S)
        try:
            asked = self._call("GET", pods, f"/{pod}/log", stream=True, params=parameters, timeout=timeout)
            async with asked as response:
                if response.is_error:
                    _raise(response.status_code, await response.aread())
                async for data in response.aiter_bytes():
                    yield data
        except kr8s.APITimeoutError as error:
            raise Silent(str(error)) from error
        except httpx.HTTPError as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        except SignedOut:
            await self._sign_in_again(signed_in)
            raise


def _raise(code: int, body: bytes) -> None:
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = f"it answered {code}"
    raise {401: SignedOut, 403: Refused, 404: Missing}.get(code, Unreachable)(message)
