"""What can be set, by environment variable (prefix `CROWDSPIKE_`) or command-line option."""

from __future__ import annotations

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is documented in docs/settings.md; a test holds the two together."""

    model_config = SettingsConfigDict(env_prefix="CROWDSPIKE_", extra="ignore", populate_by_name=True)

    store: str = "data"
    s3_endpoint_url: str | None = None
    public_url: str | None = None
    inference_url: str = Field("", validation_alias=AliasChoices("INFERENCE_URL", "CROWDSPIKE_INFERENCE_URL"))
    simulated: bool = False
    secret: str | None = None
    presenter_token: str | None = None
    trusted_proxies: str = "127.0.0.1"
    max_participants: int = 5000
    max_body_bytes: int = 64 * 1024
    joins_per_minute_per_address: int = 3000
    responses_per_minute: int = 60
    sign_ins_per_minute_per_address: int = 20
    tail_interval_s: float = 0.4

    @property
    def inference_urls(self) -> list[str]:
        """Upstreams, as given separated by commas or spaces."""
        return [url.rstrip("/") for url in self.inference_url.replace(",", " ").split()]
