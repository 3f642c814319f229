"""The contract of codecs, held to by every registered stage and preset; see checks.py."""

import pytest

from tests.contract import cases
from tests.contract import checks


@pytest.mark.parametrize('check', checks.ALL, ids=lambda check: check.__name__)
@pytest.mark.parametrize('case', cases.all_cases(), ids=str)
def test_contract(case, check):
  check(case)
