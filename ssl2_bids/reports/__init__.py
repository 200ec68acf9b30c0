"""Results in, SVG and HTML out."""
