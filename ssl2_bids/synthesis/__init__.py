"""The training engine: heads of any contrast with lesions, drawn at every step (torch)."""
