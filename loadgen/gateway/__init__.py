"""`make bench-gateway`: what a request and a streamed token cost in our gateway and in others, side by side."""
