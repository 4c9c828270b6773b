"""The view of a real Kubernetes cluster: its objects are watched, and turned into a snapshot by pure functions."""
