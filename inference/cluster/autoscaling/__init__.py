"""How many pods there should be: KEDA's triggers and formula, the HPA's algorithm, the queries they ask. Pure."""
