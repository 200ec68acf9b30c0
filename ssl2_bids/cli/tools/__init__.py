"""The commands of ``ssl2``: simulate, evaluate, pretrain."""
