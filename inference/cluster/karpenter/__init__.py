"""Karpenter's part: what can be bought, what is bought, when it can't be had, and when it is given back."""
