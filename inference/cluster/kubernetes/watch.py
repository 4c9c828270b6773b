"""Keeps the objects of one resource as the API server has them: list, watch, resume, and list again when it must.

See https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes. A watch is asked to end
after some seconds and resumed from where it was: so a connection that died in silence is noticed, and a view that
nothing changes is still known to be fresh.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from inference.cluster.kubernetes.api import (
    Api,
    Expired,
    Missing,
    NoCredentials,
    Refused,
    Resource,
    Silent,
    Unreachable,
)
from inference.cluster.kubernetes.objects import NOTHING, Object, uid

log = logging.getLogger("crowdspike.kubernetes")

State = Literal["starting", "well", "failing", "missing", "refused"]


@dataclass(frozen=True, slots=True)
class Timing:
    """`patience_s` is for an answer that is late, `again_s` until what is missing or refused is asked for again."""

    watch_s: float = 10.0
    patience_s: float = 5.0
    again_s: float = 60.0
    back_off_s: float = 0.5
    max_back_off_s: float = 10.0


class Watch:
    """`objects` is None until they are first listed, and while there is no such resource or no right to read it."""

    def __init__(
        self,
        api: Api,
        resource: Resource,
        tell: Callable[[], None],
        clock: Callable[[], float],
        timing: Timing,
    ) -> None:
        self.resource = resource
        self.state: State = "starting"
        self.trouble = ""
        self.heard_s = clock()
        self._api = api
        self._tell = tell
        self._clock = clock
        self._timing = timing
        self._objects: dict[str, Object] | None = None
        self._version = ""
        self._failures = 0

    @property
    def objects(self) -> Collection[Object] | None:
        return None if self._objects is None else self._objects.values()

    @property
    def settled(self) -> bool:
        """Whether it is known what there is, even if that is nothing."""
        return self._objects is not None or self.state in ("missing", "refused")

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self._once()
                continue
            except Expired as error:
                self._version = ""
                pause_s = self._failed(str(error))
            except (Missing, Refused) as error:
                self._set("missing" if isinstance(error, Missing) else "refused", str(error))
                pause_s = self._timing.again_s
            except (Unreachable, NoCredentials) as error:
                pause_s = self._failed(str(error), at_once=isinstance(error, Silent))
            except Exception as error:  # a fault of ours or of the client's must not freeze the view for good
                log.exception("watching %s failed", self.resource)
                pause_s = self._failed(f"{type(error).__name__}: {error}")
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _once(self) -> None:
        if not self._version:
            listed, self._version = await self._api.list(self.resource)
            self._objects = {uid(it): it for it in listed}
            self.heard_s = self._clock()
            self._tell()
        timing = self._timing
        await self._api.watch(self.resource, self._version, self._heard, self._event, timing.watch_s, timing.patience_s)
        self._heard()

    def _event(self, kind: str, it: Object) -> None:
        self._version = it.get("metadata", NOTHING).get("resourceVersion") or self._version
        assert self._objects is not None, "watched before it was listed"
        if kind in ("ADDED", "MODIFIED"):
            self._objects[uid(it)] = it
        elif kind == "DELETED":
            self._objects.pop(uid(it), None)
        self._heard()

    def _heard(self) -> None:
        self._failures = 0
        self.heard_s = self._clock()
        self._set("well", "")

    def _failed(self, trouble: str, at_once: bool = False) -> float:
        """The pause before the next try. One failure is no trouble, unless `at_once`: connections do end at times."""
        self._failures += 1
        if self._failures > 1 or at_once:
            self._set("failing", trouble)
        # A server that is back with an older state never reaches the version that we ask for.
        if self._failures > 3:
            self._version = ""
        return min(self._timing.back_off_s * 2 ** min(self._failures - 1, 16), self._timing.max_back_off_s)

    def _set(self, state: State, trouble: str) -> None:
        if state in ("missing", "refused"):
            self._objects = None
            self._version = ""
            self._failures = 0
        self.state = state
        self.trouble = trouble
        self._tell()
