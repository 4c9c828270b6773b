"""How fast a model runs on a GPU: a file of figures, each with the source it comes from and the date.

A step takes `step_base_ms`, plus `step_per_decode_ms` for each request that decodes, `step_per_prefill_token_ms` for
each prompt token, and `step_per_context_token_us` for each token that the decoding ones attend to; times a random
factor, log-normal with median 1 and `step_jitter` as the standard deviation of its logarithm. Where larger batches need
other kernels, each decoding request above `step_knee_seqs` takes `step_per_decode_over_knee_ms` more; a file may leave
these two out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from inference.engine.scheduler import Batch, Capacity

FOLDER = Path(__file__).parent / "profiles"


class ProfileError(ValueError):
    """A profile that can't be used; says which file, line and field, and what would be right."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `source` says where it comes from, `date` when it was measured or read (YYYY-MM-DD)."""

    value: float
    source: str
    date: str


NO_KNEE = Figure(0.0, "none known", "2026-11-21")


@dataclass(frozen=True, slots=True)
class Profile:
    """All the figures of one GPU, model and set of vLLM arguments. Fields are those of the file."""

    name: str
    about: str
    async_scheduling: bool
    step_base_ms: Figure
    step_per_decode_ms: Figure
    step_per_prefill_token_ms: Figure
    step_per_context_token_us: Figure
    step_jitter: Figure
    request_overhead_ms: Figure  # HTTP, tokenizer and hand-over, before a request is in the engine's queue
    max_num_seqs: Figure
    max_num_batched_tokens: Figure
    max_model_len: Figure
    kv_block_size: Figure
    num_kv_blocks: Figure
    startup_imports_s: Figure
    startup_weights_s: Figure
    startup_compile_s: Figure
    step_knee_seqs: Figure = NO_KNEE
    step_per_decode_over_knee_ms: Figure = NO_KNEE

    @property
    def capacity(self) -> Capacity:
        return Capacity(**{f.name: int(getattr(self, f.name).value) for f in fields(Capacity)})

    def with_values(self, values: Mapping[str, float], source: str, date: str) -> Profile:
        """The same with other figures in place of some."""
        return replace(self, **{name: Figure(value, source, date) for name, value in values.items()})

    def step_s(self, batch: Batch, rng: random.Random) -> float:
        """How long the batch takes, in seconds."""
        return self.mean_step_s(batch) * rng.lognormvariate(0.0, self.step_jitter.value)

    def mean_step_s(self, batch: Batch) -> float:
        return (
            self.step_base_ms.value
            + self.step_per_decode_ms.value * batch.decode_seqs
            + self.step_per_decode_over_knee_ms.value * max(0.0, batch.decode_seqs - self.step_knee_seqs.value)
            + self.step_per_prefill_token_ms.value * batch.prefill_tokens
            + self.step_per_context_token_us.value * batch.context_tokens / 1000
        ) / 1000


FIGURES = tuple(f.name for f in fields(Profile) if f.name not in ("name", "about", "async_scheduling"))
OPTIONAL = ("step_knee_seqs", "step_per_decode_over_knee_ms")
COUNTS = tuple(f.name for f in fields(Capacity))


def names() -> list[str]:
    """The profiles that come along."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def of_gpu(gpu: str) -> str | None:
    """The profile that comes along for a GPU, by the name that Karpenter gives it (`a10g`, `l4`, `t4`)."""
    return next((name for name in names() if name.startswith(f"{gpu}-")), None)


def load(name: str) -> Profile:
    """A profile by its name, or by the path of its file (which ends in .yaml). Raises ProfileError."""
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        known = f"; the ones that come along: {', '.join(names())}" if path.parent == FOLDER else ""
        raise ProfileError(f"no profile {name!r}: {error}{known}") from error
    return parse(text, str(name))


def parse(text: str, where: str) -> Profile:
    """A profile from its file's text; `where` names it in errors. Raises ProfileError."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProfileError(f"{where}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ProfileError(f"{where}: expected fields, each on a line of its own, such as `name: …`")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}

    def wrong(field: str, message: str) -> ProfileError:
        return ProfileError(f"{where}:{lines.get(field, 1)}: {field}: {message}")

    allowed = {f.name for f in fields(Profile)}
    for field in data:
        if field not in allowed:
            raise wrong(str(field), f"no such field; there are {', '.join(sorted(allowed))}")
    for field in sorted(allowed - data.keys() - set(OPTIONAL)):
        raise wrong(field, "is missing")
    for field in ("name", "about"):
        if not isinstance(data[field], str) or not data[field].strip():
            raise wrong(field, "must be a text")
    if not isinstance(data["async_scheduling"], bool):
        raise wrong("async_scheduling", "must be true or false")
    figures = {field: _figure(field, data[field], wrong) for field in FIGURES if field in data}
    profile = Profile(data["name"], data["about"], data["async_scheduling"], **figures)
    if profile.step_base_ms.value <= 0:
        raise wrong("step_base_ms", "must be above 0")
    if profile.capacity.usable_blocks * profile.capacity.kv_block_size < profile.capacity.max_model_len:
        raise wrong("num_kv_blocks", "the KV cache must hold at least one request of max_model_len tokens")
    return profile


def _figure(field: str, entry: Any, wrong: Any) -> Figure:
    if not isinstance(entry, dict) or set(entry) != {"value", "source", "date"}:
        raise wrong(field, "must be {value: …, source: …, date: …}")
    value, source = entry["value"], entry["source"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise wrong(field, f"value must be a number of 0 or more, not {value!r}")
    if field in COUNTS and (value != int(value) or value < 1):
        raise wrong(field, f"value must be a whole number above 0, not {value!r}")
    if not isinstance(source, str) or not source.strip():
        raise wrong(field, "source must say where the value comes from")
    return Figure(value, source, str(entry["date"]))


def dump(profile: Profile) -> str:
    """The profile as the text of a file, which `parse` reads again."""
    data: dict[str, Any] = {"name": profile.name, "about": profile.about, "async_scheduling": profile.async_scheduling}
    for field in FIGURES:
        figure: Figure = getattr(profile, field)
        if figure is NO_KNEE:
            continue
        data[field] = {"value": figure.value, "source": figure.source, "date": figure.date}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
