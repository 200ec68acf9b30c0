#!/usr/bin/env python3
"""BIDS App entry point: the same as the console script ssl2-bids."""

import sys

from ssl2_bids.cli.app import main

if __name__ == '__main__':
    sys.exit(main())
