"""Load runs that a presenter starts from the console: chosen, started, followed, recorded."""
