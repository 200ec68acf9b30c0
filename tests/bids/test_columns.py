"""Columns are spelt alike in all tables."""

from __future__ import annotations

import re

from ssl2_bids.bids import columns


def test_column_names_are_words_joined_by_underscores():
    tables = [table for name, table in vars(columns).items() if name.endswith('_COLUMNS')]
    names = {name for table in tables for name in table}
    assert {'volume_mm3', 'brain_volume_mm3', 'expected_gain_mm3'} <= names
    for column in names - {'deep-white-matter_count', 'deep-white-matter_volume_mm3'}:
        assert re.fullmatch('[a-zA-Z0-9]+(_[a-zA-Z0-9]+)*', column), column
