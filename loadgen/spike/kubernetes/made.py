"""What a run makes on a cluster: checked, made, and taken away again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from inference.cluster.cluster import NoCluster
from inference.cluster.kubernetes.api import ApiError, Missing, Refused, Resource
from loadgen.spike.kubernetes.api import Api
from loadgen.spike.kubernetes.cluster import Manifest

REMOVE_TRIES, AGAIN_S = 3, 1.0
NO_OPERATOR = "it has no k6-operator (no testruns.k6.io): install that, or use --tool locust"
_log = logging.getLogger(__name__)


class Made:
    """The first object is what the others are for: it owns them, so that all go when it does, whoever takes it away.
    `namespace` is that of the kubeconfig where it is empty."""

    def __init__(self, api: Api, objects: Sequence[Manifest], namespace: str) -> None:
        self._api = api
        self._objects = objects
        self.namespace = namespace
        self._there = False
        self._changing = asyncio.Lock()

    @property
    def root(self) -> Resource:
        return self._resource(self._objects[0])

    @property
    def name(self) -> str:
        return self._objects[0]["metadata"]["name"]

    async def check(self) -> None:
        """Signs in, and has the server try everything without doing it. Raises ApiError, NoCluster."""
        await self._api.sign_in()
        self.namespace = self.namespace or self._api.namespace
        pods = Resource("v1", "pods", self.namespace)
        for verb, resource, below in (
            ("list", pods, ""),
            ("get", pods, "log"),
            ("list", self.root, ""),
            ("delete", self.root, ""),
        ):
            if not await self._api.may(verb, resource, below):
                what = f"{resource}/{below}" if below else f"{resource}"
                raise Refused(f"the right to {verb} {what} in the namespace {self.namespace} is missing")
        for it in self._objects:
            await self._create(it, dry_run=True)

    async def make(self) -> None:
        """Raises ApiError, NoCluster; then some of it may be there."""
        async with self._changing:
            self._there = True
            first, *rest = self._objects
            made = (await self._create(first))["metadata"]
            owner = {"apiVersion": first["apiVersion"], "kind": first["kind"], "name": made["name"], "uid": made["uid"]}
            for it in rest:
                await self._create({**it, "metadata": {**it["metadata"], "ownerReferences": [owner]}})

    async def remove(self) -> None:
        """If it is there. Says what to do where that does not work."""
        async with self._changing:
            for left in reversed(range(REMOVE_TRIES)):
                try:
                    if self._there:
                        await self._api.remove(self.root, self.name)
                except Missing:
                    pass
                except (ApiError, NoCluster) as error:
                    if not left:
                        by_hand = f"kubectl delete {self.root} {self.name} -n {self.namespace}"
                        _log.error("The run may go on, on the cluster: %s. Take it away with: %s", error, by_hand)
                        return
                    await asyncio.sleep(AGAIN_S)
                    continue
                self._there = False
                return

    async def _create(self, it: Manifest, dry_run: bool = False) -> Manifest:
        resource = self._resource(it)
        try:
            return dict(await self._api.create(resource, it, dry_run))
        except Missing as error:
            if it["kind"] == "TestRun" and "namespaces" not in str(error):
                raise Missing(NO_OPERATOR) from None
            raise Missing(str(error)) from None
        except ApiError as error:
            raise type(error)(f"{resource}: {error}") from None

    def _resource(self, it: Manifest) -> Resource:
        return Resource(it["apiVersion"], f"{it['kind'].lower()}s", self.namespace)
