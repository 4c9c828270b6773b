"""A run's manifests as a person reads them, and as `kubectl create -f -` takes them."""

from __future__ import annotations

from dataclasses import replace

import yaml

from loadgen.spike.kubernetes import jobs, testrun
from loadgen.spike.kubernetes.cluster import Cluster, name_of
from loadgen.spike.tools.tool import Job

MANIFESTS = {"k6": testrun.manifests, "locust": jobs.manifests}
HIDDEN = "put it here"


def printed(tool: str, job: Job, cluster: Cluster) -> str:
    """YAML; what is secret is not in it. Raises BadPlan, ToolFailed."""
    hidden = replace(job, api_key=job.api_key and HIDDEN, presenter_token=job.presenter_token and HIDDEN)
    # What the first is for comes before it: by hand there is nobody who makes them all at once.
    first, *rest = MANIFESTS[tool](name_of(job.folder.name), hidden, cluster)
    return yaml.dump_all([*rest, first], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """Files in lines."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
