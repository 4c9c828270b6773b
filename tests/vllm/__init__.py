"""What only real vLLM can say. `make test-vllm` runs it; the environment is the folder CROWDSPIKE_VLLM_ENV."""
