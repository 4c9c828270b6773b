"""Shared by all tests: property tests have no deadline, as machines differ, and print how to repeat a failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("crowdspike", deadline=None, print_blob=True)
settings.load_profile("crowdspike")
