"""The simulated replica: vLLM's HTTP, word for word, over a small question-and-answer text. It
always says what it is."""
