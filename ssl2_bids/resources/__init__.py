"""Data files of the package: weights and cards, region atlas, patterns, references."""
