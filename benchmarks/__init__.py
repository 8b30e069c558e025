"""Measurements, never tests: seconds on a shared machine say little, ratios within one run say more."""
