"""A run's tool on a Kubernetes cluster: its manifests, its pods, and their logs merged into one stream of reports."""
