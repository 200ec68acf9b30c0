"""What ``realism.py`` is made of."""
