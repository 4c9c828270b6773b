"""The way from phones, load tools and API clients to the replicas: one queue, one count, OpenAI's HTTP."""
