"""Tasks whose truth is in the images themselves."""
