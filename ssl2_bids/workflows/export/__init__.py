"""Results in the places and forms that other programs read."""
