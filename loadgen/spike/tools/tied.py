"""Runs a command that dies with the process which started it, even when that is killed with -9.

python -m loadgen.spike.tools.tied [--parent PID] COMMAND…

Linux sends the signal to a child whose parent has gone, and keeps the wish over an exec; elsewhere the command just
runs. The parent is the thread that starts it: that must live as long as the command should.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def tied(command: Sequence[str]) -> list[str]:
    """The command line which runs `command` tied to this process."""
    return [sys.executable, "-I", "-S", __file__, "--parent", str(os.getpid()), *command]


def tie(parent: int) -> None:
    """Asks for SIGKILL when the parent dies. Exits when it already has."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before the request
        sys.exit("the process that started this has gone")


def main(arguments: Sequence[str]) -> None:
    parent = os.getppid()
    if arguments[:1] == ["--parent"]:
        parent, arguments = int(arguments[1]), arguments[2:]
    if not arguments:
        sys.exit(__doc__)
    tie(parent)
    try:
        os.execvp(arguments[0], arguments)
    except OSError as error:
        sys.exit(f"{arguments[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
