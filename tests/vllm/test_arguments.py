"""The arguments of inference/vllm.py, held against the parser of the vLLM that is installed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from inference import vllm

ENVIRONMENT = os.environ.get("CROWDSPIKE_VLLM_ENV", "")
PARSE = Path(__file__).with_name("parse.py")
ARGUMENTS = vllm.Serving("s3://models/mistral-7b-instruct-awq").arguments()

pytestmark = pytest.mark.skipif(not ENVIRONMENT, reason="needs real vLLM: make test-vllm")


def edited(old: str, new: str) -> list[str]:
    assert old in ARGUMENTS
    return [new if argument == old else argument for argument in ARGUMENTS]


WRONG = {
    "a misspelt option": edited("--max-num-seqs", "--max-nun-seqs"),
    "a load format that is none": edited("runai_streamer", "runai_steamer"),
    "a type that is none": edited("half", "hlaf"),
    "a quantization that is none": edited("awq_marlin", "awq_merlin"),
    "a number that is none": edited("4096", "many"),
    "an unknown setting of the loader": edited('{"concurrency": 16}', '{"concurency": 16}'),
}


@pytest.fixture(scope="module")
def parsed() -> dict[str, dict]:
    """What vLLM makes of our arguments ("ours") and of each wrong one; asked once, as the import takes seconds."""
    asked = {"ours": list(ARGUMENTS), **WRONG}
    command = [str(Path(ENVIRONMENT) / "bin" / "python"), str(PARSE)]
    ran = subprocess.run(command, input=json.dumps(list(asked.values())), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return dict(zip(asked, json.loads(ran.stdout.splitlines()[-1]), strict=True))


def test_vllm_understands_every_argument(parsed):
    ours = parsed["ours"]
    expected = {
        "model_tag": "s3://models/mistral-7b-instruct-awq",
        "served_model_name": ["mistral"],
        "port": vllm.PORT,
        "loader": "RunaiModelStreamerLoader",
        "model_loader_extra_config": {"concurrency": 16},
        "quantization": "awq_marlin",
        "dtype": "half",
        "max_model_len": vllm.MAX_MODEL_LEN,
        "max_num_seqs": vllm.MAX_NUM_SEQS,
        "gpu_memory_utilization": 0.9,
        "shutdown_timeout": vllm.SHUTDOWN_TIMEOUT_S,
    }
    assert {name: ours.get(name) for name in expected} == expected


@pytest.mark.parametrize("name", WRONG)
def test_vllm_refuses(parsed, name):
    assert parsed[name].keys() == {"error"}
    assert parsed[name]["error"]
