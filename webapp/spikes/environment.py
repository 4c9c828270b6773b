"""What a run's child process finds in its environment: the secrets that its own target needs, and no others."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import SecretStr

from webapp.identity import Signer
from webapp.room.events import SpikeArmed
from webapp.spikes import keys
from webapp.spikes.choice import OWN_KEY

API_KEY, PRESENTER_TOKEN = "CROWDSPIKE_SPIKE_API_KEY", "CROWDSPIKE_PRESENTER_TOKEN"
_OURS = ("CROWDSPIKE_", "AWS_", "INFERENCE_", "OPENAI_")


class Environments:
    """Makes them. `other_key` is for targets that are not our own gateway: ours gets a key that ends with the run."""

    def __init__(self, signer: Signer, presenter_token: str, other_key: SecretStr | None) -> None:
        self._signer = signer
        self._presenter_token = presenter_token
        self._other_key = other_key

    def __call__(self, armed: SpikeArmed, own: bool) -> Mapping[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return {**inherited, "PYTHONUNBUFFERED": "1", **self._secrets(armed, own)}

    def _secrets(self, armed: SpikeArmed, own: bool) -> Mapping[str, str]:
        if own:
            key = {API_KEY: keys.make(self._signer, armed.spike, armed.until_ms)}
            return key | ({PRESENTER_TOKEN: self._presenter_token} if armed.scenario in OWN_KEY else {})
        return {API_KEY: self._other_key.get_secret_value()} if self._other_key else {}
