"""How near the simulated replica comes to a real vLLM: the same requests to both, side by side."""
