"""Ordinary Locust files: `locust -f loadgen/locustfiles/completions.py --host http://…`, with their parts (`_….py`)."""
