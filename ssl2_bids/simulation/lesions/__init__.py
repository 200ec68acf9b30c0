"""Lesions of known truth: how many, where, of which shape."""
