"""The networks that a card can name, one module each."""
