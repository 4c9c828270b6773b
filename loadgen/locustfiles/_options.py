"""What a test is told, by Locust's own options, by the environment or on its web page; and the plan that it makes."""

from __future__ import annotations

import http.client
import json
import logging
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from locust import events
from locust.argument_parser import LocustArgumentParser

from loadgen.spike.plan import Plan
from loadgen.spike.probe import tls
from loadgen.spike.scenarios import Options, plan

LOOK_S = 5.0
_log = logging.getLogger(__name__)


@events.init_command_line_parser.add_listener
def _add(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("crowdspike", "What to send; the API key is $API_KEY")
    group.add_argument("--plan", env_var="PLAN", default="", help="A plan.json; what follows is for runs without one")
    group.add_argument("--peak", type=float, env_var="PEAK", default=20, help="Requests a second at the peak")
    group.add_argument("--duration", type=float, env_var="DURATION", default=60, help="Seconds")
    group.add_argument("--seed", type=int, env_var="SEED", default=1, help="Of the prompts")
    group.add_argument("--room", env_var="ROOM", default="", help="The code of the room for audience and amplify")
    group.add_argument("--copies", type=int, env_var="COPIES", default=5, help="Of each question, for amplify")
    group.add_argument("--insecure", action="store_true", env_var="INSECURE", help="Take any certificate")


def plan_of(options: Namespace, scenario: str) -> Plan:
    """The plan in the file that the options name, else the scenario's own. Raises BadPlan, OSError."""
    if options.plan:
        return Plan.from_json(Path(options.plan).read_bytes())
    peak = None if scenario == "matrix" else options.peak
    asked = Options(tool="locust", peak=peak, duration_s=options.duration, seed=options.seed, room=options.room)
    return plan(scenario, replace(asked, copies=options.copies))


def api_key() -> str:
    """By the environment alone: Locust shows its options to everyone who sees its page."""
    return os.environ.get("API_KEY", "")


def first_model(target: str, insecure: bool) -> str:
    """The first that the server lists; empty when it can't be asked now, which vLLM takes for the one that it has."""
    parts = urlsplit(target)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=LOOK_S, context=tls(insecure))
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=LOOK_S)
    try:
        connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {api_key()}"} if api_key() else {})
        return json.load(connection.getresponse())["data"][0]["id"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
        _log.warning("%s does not list its models: %s", target, error)
        return ""
    finally:
        connection.close()
