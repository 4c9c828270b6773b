"""What a vLLM 0.32 server promises, as one suite for the real one and for ours.

Without CROWDSPIKE_TEST_VLLM_URL it runs against a simulated replica. With it, against the server at that URL, which
has to serve the model `mistral` with the options in `SERVER`. Answers are held against tests/inference/recorded, made
from a real server by `python -m tests.contract.record URL`. What a simulated replica cannot have: `differences.py`.
"""

MAX_MODEL_LEN = 1024
MAX_NUM_SEQS = 32
MAX_NUM_QUEUED_REQS = 96
SERVER = (
    *("--max-model-len", str(MAX_MODEL_LEN)),
    *("--max-num-seqs", str(MAX_NUM_SEQS)),
    *("--max-num-queued-reqs", str(MAX_NUM_QUEUED_REQS)),
)
