"""A scanner twin: a protocol fitted to a site's unlabelled scans, and labelled people of it."""
