"""The gateways that are measured: how each is installed, configured for the least overhead, and started.

Each Python or Rust peer has a virtual environment of its own under `.peers/`, so that none of their requirements
meets ours.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadgen.gateway.wire import MODEL
from loadgen.processes import NotReady, Process, free_port, web_app

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".peers"
INSTALL_WITHIN_S = 600.0
PLENTY = "1000000000"
"""A rate limit that is checked for every request and never reached."""


class NotInstalled(Exception):
    """The text says why, in a line."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway is to run: a folder of its own, its port, the replicas' ports, its core."""

    folder: Path
    port: int
    replicas: Sequence[int]
    core: int | None

    @property
    def replica_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.replicas]


@dataclass(frozen=True, slots=True)
class Started:
    """A gateway that answers. `headers` go with each request; `scrape` is read once a second if it is a path."""

    process: Process
    headers: str = ""
    scrape: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """`requirement` is what pip is given; `command` makes the command line, after it has written its configuration."""

    name: str
    ready_path: str
    command: Callable[[Path, Place], list[str]]
    requirement: str = ""
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return PEERS / self.name

    def install(self) -> None:
        """Into `.peers/`, unless this very version is there. Raises NotInstalled."""
        mark = self.home / "installed"
        if not self.requirement or (mark.exists() and mark.read_text() == self.requirement):
            return
        shutil.rmtree(self.home, ignore_errors=True)
        _run(self.python, "-m", "venv", self.home)
        _run(self.home / "bin/python", "-m", "pip", "install", "--quiet", self.requirement)
        mark.write_text(self.requirement)

    def start(self, place: Place) -> Started:
        """Raises NotReady or NotInstalled."""
        command = self.command(self.home / "bin", place)
        log = place.folder / f"{self.name}.log"
        return Started(Process(command, place.port, self.ready_path, log, self.environment, place.core))


class Crowdspike:
    """Ours, with everything switched on: keys, limits, the log of requests, and metrics that are scraped."""

    name = "crowdspike"

    def install(self) -> None:
        pass

    def start(self, place: Place) -> Started:
        store = str(place.folder / "store")
        rates = ["--requests-per-minute", PLENTY, "--tokens-per-minute", PLENTY]
        command = [sys.executable, "-m", "webapp.cli", "keys", "add", "bench", "--store", store, *rates]
        made = subprocess.run(command, capture_output=True, text=True)
        key = next((word for word in made.stdout.split() if word.startswith("csk_")), None)
        if key is None:
            raise NotReady(f"{command}: no key\n{made.stdout}{made.stderr}")
        environment = {"CROWDSPIKE_API_KEYS": "required", "CROWDSPIKE_LOG_REQUESTS": "true"}
        log = place.folder / "crowdspike.log"
        urls = ",".join(place.replica_urls)
        process = web_app(log, store, port=place.port, inference_url=urls, environment=environment, core=place.core)
        return Started(process, f"authorization: Bearer {key}\r\n", "/metrics")


def _nginx(_: Path, place: Place) -> list[str]:
    """Round robin over kept connections, nothing buffered, nothing logged."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        raise NotInstalled("nginx is not installed; scripts/apt-install nginx-light does that")
    place.folder.chmod(0o755)  # started by root, nginx works as another user
    servers = "\n".join(f"    server 127.0.0.1:{port};" for port in place.replicas)
    config = place.folder / "nginx.conf"
    config.write_text(f"""\
daemon off;
worker_processes 1;
pid {place.folder}/nginx.pid;
error_log {place.folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {place.folder};
  proxy_temp_path {place.folder};
  fastcgi_temp_path {place.folder};
  uwsgi_temp_path {place.folder};
  scgi_temp_path {place.folder};
  upstream replicas {{
{servers}
    keepalive 256;
    keepalive_requests 1000000;
  }}
  server {{
    listen 127.0.0.1:{place.port} backlog=2048;
    keepalive_requests 1000000;
    location / {{
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
""")
    return [program, "-p", str(place.folder), "-c", str(config)]


def _vllm_router(programs: Path, place: Place) -> list[str]:
    return [
        *(str(programs / "vllm-router"), "--host", "127.0.0.1", "--port", str(place.port)),
        *("--worker-urls", *place.replica_urls, "--policy", "round_robin", "--log-level", "error"),
        *("--prometheus-port", str(free_port()), "--worker-startup-check-interval", "1"),
    ]


def _sglang_router(programs: Path, place: Place) -> list[str]:
    return [
        *(str(programs / "sglang-router"), "launch", "--host", "127.0.0.1", "--port", str(place.port)),
        *("--worker-urls", *place.replica_urls, "--policy", "round_robin", "--log-level", "error"),
        *("--prometheus-port", str(free_port()), "--worker-startup-check-interval", "1"),
        *("--max-concurrent-requests", "1000"),
    ]


def _production_stack(programs: Path, place: Place) -> list[str]:
    each = len(place.replicas)
    return [
        *(str(programs / "vllm-router"), "--host", "127.0.0.1", "--port", str(place.port)),
        *("--service-discovery", "static", "--static-backends", ",".join(place.replica_urls)),
        *("--static-models", ",".join([MODEL] * each), "--routing-logic", "roundrobin"),
    ]


def _litellm(programs: Path, place: Place) -> list[str]:
    """One worker, no database, no keys, no callbacks, no retries, the cheapest routing."""
    config = place.folder / "litellm.json"  # JSON is YAML too
    models = [
        {
            "model_name": MODEL,
            "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none"},
        }
        for url in place.replica_urls
    ]
    settings = {"num_retries": 0, "request_timeout": 60, "telemetry": False}
    router = {"routing_strategy": "simple-shuffle"}
    config.write_text(json.dumps({"model_list": models, "litellm_settings": settings, "router_settings": router}))
    return [
        *(str(programs / "litellm"), "--host", "127.0.0.1", "--port", str(place.port)),
        *("--config", str(config), "--num_workers", "1"),
    ]


ALL: tuple[Peer | Crowdspike, ...] = (
    Peer("nginx", "/health", _nginx),
    Crowdspike(),
    Peer("vllm-router", "/health", _vllm_router, "vllm-router==0.1.17"),
    Peer("sglang-router", "/health", _sglang_router, "sglang-router==0.3.2"),
    Peer(
        "production-stack",
        "/health",
        _production_stack,
        # Not on PyPI, where its package's name belongs to the Rust router above.
        "vllm-router @ git+https://github.com/vllm-project/production-stack@089c51baedac7f3a1aec219afd5559bae4e75e31",
        python="python3.12",
    ),
    Peer(
        "litellm",
        "/health/liveliness",
        _litellm,
        "litellm[proxy]==1.106.0",
        environment={
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no key to check; it listens on loopback
        },
    ),
)


def _run(*command: str | Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_WITHIN_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(str(error)) from error
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in (error.stderr + error.stdout).splitlines() if line.strip()]
        marks = ("fatal:", "error", "")
        reason = next((line for mark in marks for line in lines if mark in line.lower()), "no word of why")
        raise NotInstalled(reason) from error
