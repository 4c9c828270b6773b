"""`crowdspike spike`: load runs with k6 and Locust, what came of them, and whether to believe it."""
