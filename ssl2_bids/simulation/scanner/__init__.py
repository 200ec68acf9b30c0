"""Sequences, fields, grids and artefacts: from a head to stored images."""
