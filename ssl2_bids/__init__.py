"""SSL2: lesion segmentation at 7T and 3T that a site can adapt, as a BIDS App."""

__version__ = '0.1.0'
__date__ = '2026-11-23'  # of this version
