"""``ssl2 simulate``: a raw dataset and its truth."""
