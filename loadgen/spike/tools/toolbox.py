"""The tools there are. Not in the package itself: the tools' own processes import that, and it must stay light."""

from __future__ import annotations

from loadgen.spike.tools.k6 import K6
from loadgen.spike.tools.locust import Locust
from loadgen.spike.tools.tool import Job, Tool

TOOLS = {"k6": K6, "locust": Locust}


def tool_for(name: str, job: Job) -> Tool:
    """Raises KeyError for a name that is not in TOOLS, ToolFailed where the tool is not installed."""
    return TOOLS[name](job)
