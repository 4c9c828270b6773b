"""Client against server: TTFT and E2E as our harness and its peers saw them, beside the server's own histograms."""
