"""The contract of codecs, held to by every registered stage and preset; see checks.py."""

import pytest

from tests.contract import cases
from tests.contract import checks


def _cases():
  """All cases; `make fast` has the first example of every stage and preset."""
  owners = set()
  for case in cases.all_cases():
    owner = case.name.partition('.')[0]
    yield pytest.param(case, id=str(case), marks=[pytest.mark.thorough] if owner in owners else [])
    owners.add(owner)


@pytest.mark.parametrize('check', checks.ALL, ids=lambda check: check.__name__)
@pytest.mark.parametrize('case', _cases())
def test_contract(case, check):
  check(case)
