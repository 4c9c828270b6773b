"""The cluster on this machine: the control plane's decisions, carried out with simulated replicas as processes."""
