"""A small cluster on loopback: the API server of tests/cluster, an operator that runs TestRuns, and Jobs, as real
processes of this machine whose output is their pods' logs.

What the k6-operator does with a TestRun is taken from its sources (pkg/resources/jobs, internal/controller).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from loadgen.processes import free_port
from loadgen.spike.tools.rest import Rest
from tests.cluster.kube_server import PODS, KubeServer, Request, _chunk, _status, _write
from tests.inference.servers import until

BIN = Path(sys.executable).parent
TESTRUNS = "/apis/k6.io/v1alpha1/namespaces/talk/testruns"
CONFIGMAPS = "/api/v1/namespaces/talk/configmaps"
SECRETS = "/api/v1/namespaces/talk/secrets"
SERVICES = "/api/v1/namespaces/talk/services"
JOBS = "/apis/batch/v1/namespaces/talk/jobs"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
MADE = (TESTRUNS, CONFIGMAPS, SECRETS, SERVICES, JOBS)


class SpikeCluster(KubeServer):
    """`denied` are rights such as `get pods/log`. `stuck` is the status of pods that never run. A log is `cut` once
    after so many lines, in the midst of the next. `logs` are those of pods that were put there by hand."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.served.update(MADE)
        self._objects.update({path: {} for path in MADE})
        self.folder = folder
        self.denied: set[str] = set()
        self.stuck: dict[str, Any] = {}
        self.stage = ""
        self.cut: dict[str, int] = {}
        self.cuts = 0
        self.logs: defaultdict[str, list[bytes]] = defaultdict(list)
        self.written: set[str] = set()
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._locust_port = free_port()

    def objects(self, path: str) -> list[dict[str, Any]]:
        return list(self._objects[path].values())

    def everything(self) -> list[str]:
        return [f"{it['kind']}/{it['metadata']['name']}" for path in MADE for it in self.objects(path)]

    # ---- the API

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        collection, _, name = request.path.rpartition("/")
        if request.path == REVIEWS:
            self._review(request, writer)
        elif request.method == "POST":
            self._create(request, writer)
        elif name == "log":
            await self._log(request, collection.rpartition("/")[2], writer)
        elif request.path in MADE and request.path in self.served:
            wanted = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
            items = [it for it in self.objects(request.path) if wanted in ("", it["metadata"]["name"])]
            _write(writer, 200, {"kind": "List", "metadata": {}, "items": items})
        elif request.method == "DELETE" and collection in MADE:
            assert json.loads(request.body)["propagationPolicy"] == "Background"
            self._delete(collection, name, writer)
        else:
            await super()._answer(request, writer)
            return
        await writer.drain()

    def _review(self, request: Request, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(request.body)["spec"]["resourceAttributes"]
        what = "/".join(filter(None, (asked["resource"], asked["subresource"])))
        allowed = f"{asked['verb']} {what}" not in self.denied
        _write(writer, 201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}})

    def _create(self, request: Request, writer: asyncio.StreamWriter) -> None:
        it = json.loads(request.body)
        plural = request.path.rpartition("/")[2]
        if request.path not in self.served:
            _write(writer, 404, _status(404, "NotFound", "the server could not find the requested resource"))
        elif f"create {plural}" in self.denied:
            _write(writer, 403, _status(403, "Forbidden", f"{plural} is forbidden: User cannot create it"))
        elif it["metadata"]["name"] in self._objects[request.path]:
            _write(writer, 409, _status(409, "AlreadyExists", "it already exists"))
        else:
            it["metadata"]["uid"] = f"uid-{it['metadata']['name']}-{it['kind']}"
            if request.query.get("dryRun") != "All":
                self.put(request.path, it)
                if it["kind"] in ("TestRun", "Job"):
                    self._begin(self._test_run(it) if it["kind"] == "TestRun" else self._job(it))
            _write(writer, 201, it)

    def _delete(self, path: str, name: str, writer: asyncio.StreamWriter) -> None:
        if name not in self._objects[path]:
            _write(writer, 404, _status(404, "NotFound", f'"{name}" not found'))
            return
        self._forget(path, name)
        _write(writer, 200, {"kind": "Status", "status": "Success"})

    def _forget(self, path: str, name: str) -> None:
        """And what it owns, as the garbage collector does."""
        uid = self._objects[path][name]["metadata"]["uid"]
        self.remove(path, name)
        for other in (*MADE, PODS):
            for it in self.objects(other):
                if any(owner["uid"] == uid for owner in it["metadata"].get("ownerReferences", ())):
                    if other == PODS:
                        self._end(it["metadata"]["name"])
                    elif it["metadata"]["name"] in self._objects[other]:
                        self._forget(other, it["metadata"]["name"])

    def _end(self, pod: str) -> None:
        process = self.processes.get(pod)
        if process is None or process.returncode is not None:
            self.remove(PODS, pod)
        else:
            process.terminate()

    async def _log(self, request: Request, pod: str, writer: asyncio.StreamWriter) -> None:
        if pod not in self._objects[PODS]:
            _write(writer, 404, _status(404, "NotFound", f'pods "{pod}" not found'))
            return
        since = request.query.get("sinceTime", "")
        lines = self.logs[pod]
        tail = int(request.query.get("tailLines", "0"))
        at = max(0, len(lines) - tail) if tail else 0
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
        timed = request.query.get("timestamps") == "true"
        while True:
            while at < len(lines):
                line = lines[at]
                at += 1
                if since and line[:19] < since[:19].encode():
                    continue
                if at == self.cut.get(pod):
                    del self.cut[pod]
                    self.cuts += 1
                    writer.write(_chunk(line[: len(line) // 2]))
                    await writer.drain()
                    writer.transport.abort()
                    return
                writer.write(_chunk((line if timed else line.partition(b" ")[2]) + b"\n"))
            await writer.drain()
            if pod in self.written or "follow" not in request.query or pod not in self._objects[PODS]:
                break
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 0.2)
        writer.write(b"0\r\n\r\n")

    # ---- what runs on it

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _test_run(self, run: dict[str, Any]) -> None:
        spec, name = run["spec"], run["metadata"]["name"]
        if self.stage:
            self.put(TESTRUNS, {**run, "status": {"stage": self.stage}})
            return
        mount = await self._mounted(spec["script"]["configMap"]["name"], None)
        count = spec["parallelism"]
        edges = ["0", *(f"{i}/{count}" for i in range(1, count)), "1"]
        rest: list[Rest] = []
        for i in range(count):
            port = free_port()
            command = [str(BIN / "k6"), "run", "--quiet"]
            if count > 1:
                command.append(f"--execution-segment={edges[i]}:{edges[i + 1]}")
                command.append(f"--execution-segment-sequence={','.join(edges)}")
            command += [*spec["arguments"].split(" "), f"/test/{spec['script']['configMap']['file']}"]
            command += [f"--address=127.0.0.1:{port}", "--paused", "--tag", f"instance_id={i + 1}"]
            command += ["--tag", f"testrun_name={name}"]
            labels = {"app": "k6", "k6_cr": name, "runner": "true", **spec["runner"]["metadata"]["labels"]}
            command = [part.replace("/test/", f"{mount}/") for part in command]
            await self._pod(f"{name}-{i + 1}-abcde", "k6", labels, run, command, await self._env(spec["runner"]["env"]))
            rest.append(Rest(f"127.0.0.1:{port}"))
        if self.stuck:
            return
        for one in rest:
            while not await one.waits():
                if name not in self._objects[TESTRUNS] or any(
                    p.returncode is not None for p in self.processes.values()
                ):
                    return  # it goes on waiting for all of them
                await asyncio.sleep(0.02)
        for one in rest:
            await one.begin()

    async def _job(self, job: dict[str, Any]) -> None:
        template, name = job["spec"]["template"], job["metadata"]["name"]
        pod = template["spec"]
        volume = pod["volumes"][0]["configMap"]
        mount = await self._mounted(volume["name"], volume["items"])
        container = pod["containers"][0]
        packages = self.folder / f"packages-{name}"
        packages.mkdir()

        def here(text: str) -> str:
            text = text.replace("/crowdspike/", f"{mount}/").replace("/packages", str(packages))
            text = re.sub(r"^/crowdspike:", f"{mount}:", text)
            text = text.replace(f"'{volume['name']}', 5557", f"'127.0.0.1', {self._locust_port}")
            return {volume["name"]: "127.0.0.1", "5557": str(self._locust_port)}.get(text, text)

        env = {key: here(value) for key, value in (await self._env(container["env"])).items()}
        before = pod["initContainers"][0]
        for i in range(job["spec"]["parallelism"]):
            preparing = await asyncio.create_subprocess_exec(*map(here, before["command"]), env=env, cwd=mount)
            assert await preparing.wait() == 0
            command = [str(BIN / container["command"][0]), *map(here, container["args"])]
            await self._pod(f"{name}-{'abcde'[i] * 5}", "locust", template["metadata"]["labels"], job, command, env)

    async def _mounted(self, name: str, items: list[dict[str, str]] | None) -> Path:
        """A folder like a kubelet's: each file is a link into a folder that is a link itself."""
        await until(lambda: name in self._objects[CONFIGMAPS])
        mount = self.folder / f"mount-{name}-{len(list(self.folder.iterdir()))}"
        return mounted(mount, self._objects[CONFIGMAPS][name]["data"], items)

    async def _env(self, env: list[dict[str, Any]]) -> dict[str, str]:
        ours = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.folder)}
        for one in env:
            if reference := one.get("valueFrom", {}).get("secretKeyRef"):
                await until(lambda name=reference["name"]: name in self._objects[SECRETS])
                ours[one["name"]] = self._objects[SECRETS][reference["name"]]["stringData"][reference["key"]]
            else:
                ours[one["name"]] = one["value"]
        return ours

    async def _pod(
        self, pod: str, container: str, labels: Mapping[str, str], owner: dict, command: list[str], env: dict[str, str]
    ) -> None:
        it = {
            "kind": "Pod",
            "metadata": {
                "name": pod,
                "labels": dict(labels),
                "ownerReferences": [{"uid": owner["metadata"]["uid"]}],
                "uid": f"uid-{pod}",
            },
            "status": self.stuck or {"phase": "Pending"},
        }
        self.put(PODS, it)
        if self.stuck:
            return
        process = self.processes[pod] = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=self.folder,
            limit=1 << 22,
        )
        self.put(PODS, {**it, "status": running(container)})
        self._begin(self._lasting(it, container, process))

    async def _lasting(self, it: dict[str, Any], container: str, process: asyncio.subprocess.Process) -> None:
        pod = it["metadata"]["name"]

        async def keep(stream: asyncio.StreamReader) -> None:
            async for line in stream:
                self.logs[pod].append(stamp() + b" " + line.rstrip(b"\n"))
                self._news.set()

        await asyncio.gather(keep(process.stdout), keep(process.stderr))
        code = await process.wait()
        self.written.add(pod)
        if any(
            one["metadata"]["uid"] == it["metadata"]["ownerReferences"][0]["uid"]
            for path in (TESTRUNS, JOBS)
            for one in self.objects(path)
        ):
            self.put(PODS, {**it, "status": ended(container, code if code >= 0 else 128 - code)})
        else:
            self.remove(PODS, pod)


def running(container: str) -> dict[str, Any]:
    return {"phase": "Running", "containerStatuses": [{"name": container, "state": {"running": {}}}]}


def ended(container: str, code: int, **more: str) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, **more}}
    phase = "Failed" if code else "Succeeded"
    return {"phase": phase, "containerStatuses": [{"name": container, "state": state}]}


def stamp() -> bytes:
    """As a kubelet writes them, with nanoseconds."""
    whole_s, rest_ns = divmod(time.time_ns(), 10**9)
    return f"{datetime.fromtimestamp(whole_s, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09}Z".encode()


def mounted(mount: Path, data: Mapping[str, str], items: list[dict[str, str]] | None = None) -> Path:
    """A folder like a kubelet's mount of a ConfigMap: each entry is a link into a folder that is a link itself."""
    version = mount / "..2026_11_21"
    for key, path in [(one["key"], one["path"]) for one in items] if items else [(key, key) for key in data]:
        (version / path).parent.mkdir(parents=True, exist_ok=True)
        (version / path).write_text(data[key])
    (mount / "..data").symlink_to(version.name)
    for entry in version.iterdir():
        (mount / entry.name).symlink_to(Path("..data") / entry.name)
    return mount


@asynccontextmanager
async def spike_cluster(folder: Path) -> AsyncIterator[SpikeCluster]:
    cluster = SpikeCluster(folder)
    await cluster.open()
    try:
        yield cluster
    finally:
        for process in cluster.processes.values():
            with suppress(ProcessLookupError):
                process.kill()
        if cluster.tasks:
            await asyncio.wait(list(cluster.tasks), timeout=5)
        for task in list(cluster.tasks):
            task.cancel()
        await cluster.go_away()


def kubeconfig(folder: Path, url: str) -> str:
    path = folder / "kubeconfig.yaml"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": "first"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "talk"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)
