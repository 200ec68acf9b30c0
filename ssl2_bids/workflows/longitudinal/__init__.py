"""Several sessions of a participant together: what is new, larger, smaller or gone."""
