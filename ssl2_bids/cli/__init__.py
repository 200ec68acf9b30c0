"""What a person types: the BIDS App and the tools."""
