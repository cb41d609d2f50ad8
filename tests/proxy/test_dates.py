"""Dates in HTTP heads are those of the standard library."""

from email.utils import formatdate

import pytest

from mesh_proxy.dates import http_date


@pytest.mark.parametrize("second", [0, 1, 951_827_696, 1_700_000_000, 1_767_225_599, 4_102_444_800])
def test_dates(second: int) -> None:
    assert http_date(second) == formatdate(second, usegmt=True).encode()
