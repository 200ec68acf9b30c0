"""How nipype runs our functions."""
