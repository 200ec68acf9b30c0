"""``ssl2 evaluate``: masks against references."""
