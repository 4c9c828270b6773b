"""Shared by all tests: property tests run the same examples on every machine, and bounded."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("repeatable", deadline=None, print_blob=True, derandomize=False)
hypothesis.settings.load_profile("repeatable")
