"""Which device computes: what can be known without a GPU."""

from __future__ import annotations

import pytest

from ssl2_bids.device import choose_device
from ssl2_bids.errors import UnavailableError


@pytest.mark.parametrize('wanted', ['cuda:x', 'cuda:', 'cuda:-1', 'gpu', 'mps', ''])
def test_a_name_that_is_none_of_a_device_is_refused(wanted):
    with pytest.raises(UnavailableError, match=f'the device "{wanted}" is not known'):
        choose_device(wanted)


def test_the_processor_is_always_there():
    assert choose_device('cpu') == 'cpu'
