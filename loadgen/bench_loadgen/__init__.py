"""What a load tool can send before it is itself the limit, and what a thousand users get of four replicas."""
