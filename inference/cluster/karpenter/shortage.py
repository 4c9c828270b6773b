"""What can't be had: what a person has made unavailable, and what Karpenter remembers to have been refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from inference.cluster.karpenter.catalogue import Offer

REMEMBERED_S = 180.0
"""UnavailableOfferingsTTL (aws/karpenter-provider-aws, pkg/cache): an offer is not tried again for three minutes."""


@dataclass(slots=True)
class Shortage:
    """`unavailable` are types of which AWS gives none, as only an attempt shows."""

    unavailable: set[str] = field(default_factory=set)
    _until_s: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def remember(self, offers: Iterable[Offer], now_s: float) -> None:
        """These have been refused."""
        for offer in offers:
            self._until_s[offer.key] = now_s + REMEMBERED_S

    def refused(self, offer: Offer, now_s: float) -> bool:
        """Whether it was refused so lately that it is not tried."""
        return self._until_s.get(offer.key, 0.0) > now_s
