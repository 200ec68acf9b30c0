"""``ssl2 pretrain``: from datasets to a model folder."""
