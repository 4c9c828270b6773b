"""The peers at that work: guidellm and aiperf, each in an environment of its own under `.peers/`.

Both are given the texts in a file, their order, the constant rate and the number of requests. Options:
https://github.com/vllm-project/guidellm and https://github.com/ai-dynamo/aiperf; 0.8.1 and 0.13.0 were looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadgen.bench_ttft.ours import Broken, Client
from loadgen.bench_ttft.work import ANSWER_TOKENS, SEED, Work
from loadgen.gateway.peers import INSTALL_WITHIN_S, PEERS, NotInstalled
from loadgen.spike.preflight import Target

STARTS_WITHIN_S = 180.0
"""They import some hundred megabytes of Python before they begin, and write their results after it."""


@dataclass(frozen=True, slots=True)
class Job:
    """`tokenizer` is a folder in Hugging Face's form: both count the prompts' tokens themselves before they begin."""

    target: Target
    work: Work
    salt: str
    tokenizer: Path
    folder: Path

    def write(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """A file of JSON lines."""
        path = self.folder / "prompts.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path


@dataclass(frozen=True, slots=True)
class Peer:
    """`requirements` is what pip is given; `command` makes the command line, after it has written its prompts; `read`
    finds the figures in what it left in the job's folder."""

    name: str
    requirements: tuple[str, ...]
    command: Callable[[Job], list[str]]
    read: Callable[[Job], Client]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return self.requirements[-1].partition("==")[2]

    def install(self) -> None:
        """Unless these very versions are there. Raises NotInstalled."""
        home, wanted = PEERS / self.name, "\n".join(self.requirements)
        mark = home / "installed"
        if mark.exists() and mark.read_text() == wanted:
            return
        shutil.rmtree(home, ignore_errors=True)
        _install(sys.executable, "-m", "venv", home)
        index = os.environ.get("TORCH_INDEX_URL")  # as scripts/vllm-cpu has it: the CPU's torch is enough
        more = ["--extra-index-url", index] if index else []
        _install(home / "bin/python", "-m", "pip", "install", "--quiet", *more, *self.requirements)
        mark.write_text(wanted)

    def measured(self, job: Job) -> Client:
        """Raises Broken."""
        within_s = STARTS_WITHIN_S + job.work.for_s
        log = job.folder / "log"
        # aiperf takes HF_HUB_OFFLINE to mean that a tokenizer's folder is not one either.
        ours = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [str(PEERS / self.name / "bin" / self.name), *self.command(job)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=job.folder,
                env={**ours, **self.environment},
                process_group=0,
            )
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"did not end within {within_s:.0f} s") from None
        finally:
            with suppress(ProcessLookupError):  # whom it started, it may have left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        try:
            return self.read(job)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise Broken(f"status {process.returncode}, {error!r}: {_last_line(log)}") from None


def _guidellm(job: Job) -> list[str]:
    rows = [{"prompt": text, "output_tokens_count": ANSWER_TOKENS} for text in job.work.salted(job.salt)]
    return [
        *("run", "--backend", f"kind=openai_http,target={job.target.url},model={job.target.model}"),
        *("--profile", f"kind=constant,rate={job.work.rate:g}"),
        *("--constraint", f"kind=max_requests,count={len(rows)}"),
        *("--tokenizer", f"kind=huggingface_auto,model={job.tokenizer}"),
        *("--data", f"kind=json_file,path={job.write(rows)}", "--seed", f"kind=static,value={SEED}"),
        *("--output", f"kind=json,path={job.folder / 'found.json'}", "--disable-console"),
    ]


def _read_guidellm(job: Job) -> Client:
    found = json.loads((job.folder / "found.json").read_text())["benchmarks"][0]["metrics"]
    ttft, e2e = found["time_to_first_token_ms"]["successful"], found["request_latency"]["successful"]
    lost = len(job.work.texts) - found["request_totals"]["successful"]
    return Client(ttft["mean"] / 1000, ttft["count"], e2e["mean"], e2e["count"], lost)


def _aiperf(job: Job) -> list[str]:
    path = job.write([{"text": text} for text in job.work.salted(job.salt)])
    exactly = {"max_completion_tokens": ANSWER_TOKENS, "min_tokens": ANSWER_TOKENS, "ignore_eos": True}
    return [
        *("profile", "--model", job.target.model, "--url", job.target.url, "--endpoint-type", "chat", "--streaming"),
        *("--tokenizer", str(job.tokenizer), "--use-server-token-count", "--extra-inputs", json.dumps(exactly)),
        *("--input-file", str(path), "--custom-dataset-type", "single_turn"),
        *("--dataset-sampling-strategy", "sequential", "--random-seed", str(SEED)),
        *("--request-rate", f"{job.work.rate:g}", "--arrival-pattern", "constant"),
        *("--request-count", str(len(job.work.texts)), "--no-gpu-telemetry", "--no-server-metrics", "--ui", "none"),
        *("--output-artifact-dir", str(job.folder / "found")),
    ]


def _read_aiperf(job: Job) -> Client:
    found = json.loads((job.folder / "found/profile_export_aiperf.json").read_text())
    ttft, e2e = found["time_to_first_token"], found["request_latency"]
    lost = len(job.work.texts) - e2e["count"]
    return Client(ttft["avg"] / 1000, ttft["count"], e2e["avg"] / 1000, e2e["count"], lost)


ALL = (
    Peer(
        "guidellm",
        ("torch==2.13.0", "guidellm==0.8.1"),
        _guidellm,
        _read_guidellm,
        {"GUIDELLM__MAX_WORKER_PROCESSES": "1", "HF_HUB_OFFLINE": "1"},
    ),
    Peer("aiperf", ("aiperf==0.13.0",), _aiperf, _read_aiperf),
)


def _install(*command: str | Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_WITHIN_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(str(error)) from error
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if "error" in line.lower()]
        raise NotInstalled(lines[0] if lines else f"pip ended with status {error.returncode}") from error


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
