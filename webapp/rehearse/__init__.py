"""A whole talk on a fast clock: what the room asks of a cluster, and what each way to scale makes of it."""
