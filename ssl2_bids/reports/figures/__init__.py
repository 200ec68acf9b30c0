"""Figures as SVG: equal volumes, equal bytes."""
