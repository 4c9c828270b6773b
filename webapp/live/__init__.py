"""What this process sees of the load and the cluster, second by second."""
