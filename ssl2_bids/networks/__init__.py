"""Networks and the checked loading of their weights; nothing of MRI."""
