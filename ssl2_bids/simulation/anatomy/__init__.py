"""Heads: tissues on a grid, from a template or from label maps."""
