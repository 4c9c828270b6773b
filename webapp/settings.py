"""What can be set, by environment variable (prefix `CROWDSPIKE_`) or command-line option."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from inference.discovery import check_url


class Settings(BaseSettings):
    """Each field is documented in docs/settings.md; a test holds the two together."""

    model_config = SettingsConfigDict(env_prefix="CROWDSPIKE_", extra="ignore", populate_by_name=True)

    store: str = "data"
    s3_endpoint_url: str | None = None
    public_url: str | None = None
    inference_url: str = Field("", validation_alias=AliasChoices("INFERENCE_URL", "CROWDSPIKE_INFERENCE_URL"))
    inference_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("INFERENCE_API_KEY", "CROWDSPIKE_INFERENCE_API_KEY")
    )
    simulated: bool = False
    cluster: Literal["none", "local", "kubernetes"] = "none"
    cluster_manifests: str | None = None
    cluster_profile: str | None = None
    cluster_speed_up: float = Field(1.0, ge=1, le=1000)
    cluster_namespace: str = "crowdspike"
    prometheus_url: str | None = Field(
        None, validation_alias=AliasChoices("PROMETHEUS_URL", "CROWDSPIKE_PROMETHEUS_URL")
    )
    secret: str | None = Field(None, min_length=32)
    presenter_token: str | None = None
    trusted_proxies: str = "127.0.0.1"
    max_participants: int = Field(5000, gt=0)
    max_body_bytes: int = Field(64 * 1024, gt=0)
    joins_per_minute_per_address: int = Field(3000, gt=0)
    responses_per_minute: int = Field(60, gt=0)
    sign_ins_per_minute_per_address: int = Field(20, gt=0)
    tail_interval_s: float = Field(0.4, gt=0)
    api_keys: Literal["required", "off"] = "required"
    log_requests: bool = True
    gateway_max_body_bytes: int = Field(1024 * 1024, gt=0)
    gateway_max_prompt_chars: int = Field(32_000, gt=0)
    gateway_max_tokens: int = Field(1024, gt=0)
    gateway_max_waiting: int = Field(2000, ge=0)
    gateway_max_wait_s: float = Field(120.0, gt=0)
    gateway_max_in_flight_per_replica: int = Field(64, gt=0)
    gateway_first_token_timeout_s: float = Field(120.0, gt=0)
    spikes_dir: str = ""
    spike_target: str = ""
    spike_api_key: SecretStr | None = None
    spike_max_peak: int = Field(200, gt=0)
    spike_max_duration_s: int = Field(1800, gt=0)

    @property
    def inference_urls(self) -> list[str]:
        """Upstreams, as given separated by commas or spaces. Many write OpenAI's base URL: its `/v1` is taken off."""
        return [url.rstrip("/").removesuffix("/v1") for url in self.inference_url.replace(",", " ").split()]

    @model_validator(mode="after")
    def _local_is_simulated(self) -> Settings:
        if self.cluster == "local":
            if self.inference_url:
                raise ValueError("an inference URL and a local cluster exclude each other: leave one out")
            self.simulated = True
        return self

    @field_validator("spike_target")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("a target is http://host:port or https://host:port")
        return value.rstrip("/").removesuffix("/v1")

    @field_validator("inference_url")
    @classmethod
    def _servers(cls, value: str) -> str:
        for url in value.replace(",", " ").split():
            check_url(url)
        return value
