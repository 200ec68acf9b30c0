"""Masks and instance maps in, numbers out."""
