"""The talks that come with the program."""

from importlib.resources import files
from pathlib import Path

from webapp.talk.model import Talk
from webapp.talk.parse import load_talk

SAMPLE = "scaling-llms-on-kubernetes.yaml"


def talk_paths() -> tuple[Path, ...]:
    """The files of the bundled talks, the sample first."""
    folder = Path(str(files("webapp") / "talks"))
    return tuple(sorted(folder.glob("*.yaml"), key=lambda path: (path.name != SAMPLE, path.name)))


def sample_talk() -> Talk:
    """The talk that a demo shows: Scaling LLMs on Kubernetes."""
    return load_talk(talk_paths()[0])
