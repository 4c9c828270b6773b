"""The cluster under the replicas: what it looks like, what decides its size, and where it runs."""
