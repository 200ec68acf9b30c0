"""The adaptation of a model to a site, from labels to new results."""
