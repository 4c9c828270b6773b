"""What of the Deployment's arguments a simulated replica is given."""

from dataclasses import replace
from pathlib import Path

import pytest

from inference.cluster import manifests
from inference.cluster.local.command import engine_command
from inference.vllm import Serving


def given(command: list[str], name: str) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word == name]


def command(*args: str, qa: Path | None = None) -> list[str]:
    arguments = replace(manifests.load(manifests.defaults()).pod, args=args).arguments
    return engine_command(arguments, profile="instant", qa=qa, startup_scale=0.1)


def test_replica_gets_the_capacity_and_the_grace_of_vllms_own_arguments():
    of_vllm = command(*Serving("s3://bucket/model").arguments())
    assert given(of_vllm, "--max-num-seqs") == ["32"]
    assert given(of_vllm, "--max-model-len") == ["4096"]
    assert given(of_vllm, "--shutdown-timeout") == ["60"]
    assert given(of_vllm, "--model") == ["mistral"]
    assert given(of_vllm, "--port") == ["0"]
    assert "--quantization" not in of_vllm


@pytest.mark.parametrize(
    "args", [("--max-num-seqs=8",), ("--max-num-seqs", "8"), ("--dtype", "half", "--max-num-seqs=8")]
)
def test_both_ways_to_write_an_argument_are_read(args):
    assert given(command(*args), "--max-num-seqs") == ["8"]


def test_replica_ends_with_its_parent_and_speaks_the_talks_text(tmp_path):
    with_text = command(qa=tmp_path / "qa.json")
    assert "--with-parent" in with_text
    assert given(with_text, "--qa") == [str(tmp_path / "qa.json")]
    assert "--qa" not in command()
