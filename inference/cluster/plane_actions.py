"""What the control plane wants done with containers; who runs them carries it out and reports back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """Run the pod's container now: its image is there. Also to run it again after it ended. `gpu` is its node's."""

    pod: str
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """End it: the preStop wait, then SIGTERM, and SIGKILL when `grace_s` from now have passed."""

    pod: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL at once."""

    pod: str


Action = Start | Stop | Kill
