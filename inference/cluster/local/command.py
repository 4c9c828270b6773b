"""The command line of a pod's process: what the Deployment tells vLLM, as far as a simulated replica takes it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

# vLLM's argument, and the simulated replica's for the same. The rest (files, GPU, quantization) is the profile's.
TAKEN = {
    "--served-model-name": "--model",
    "--max-num-seqs": "--max-num-seqs",
    "--max-num-batched-tokens": "--max-num-batched-tokens",
    "--max-model-len": "--max-model-len",
    "--shutdown-timeout": "--shutdown-timeout",
}


def engine_command(arguments: Mapping[str, str], *, profile: str, qa: Path | None, startup_scale: float) -> list[str]:
    """`arguments` are the container's in the Deployment, by name."""
    command = [sys.executable, "-m", "inference.engine", "--port", "0", "--with-parent"]
    command += ["--profile", profile, "--startup-scale", f"{startup_scale:.9g}"]
    command += ["--qa", str(qa)] if qa else []
    for name, value in arguments.items():
        if name in TAKEN:
            command += [TAKEN[name], value]
    return command
