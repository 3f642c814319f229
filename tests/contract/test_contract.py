"""The contract of codecs, held to by every registered stage and preset; see checks.py."""

import pytest

from tests.contract import cases
from tests.contract import checks
from tff_compress.codec import presets


def _name(check):
  return check.__name__


# Those that need many messages; the statistical ones share them.
SLOWEST = (checks.error_is_within_its_declared_bound, checks.is_unbiased_where_it_says_so,
           checks.error_of_the_mean_falls_as_one_over_n, checks.damaged_payloads_are_refused_or_decode_to_numbers)


@cases.ANY_MODEL
@pytest.mark.parametrize('check', [check for check in checks.ALL if check not in SLOWEST], ids=_name)
@pytest.mark.parametrize('case', cases.parameters())
def test_contract(case, check):
  check(case)


@cases.ANY_MODEL
@pytest.mark.parametrize('check', SLOWEST, ids=_name)
@pytest.mark.parametrize('case', cases.parameters(thorough=lambda case: case.name in presets.registry()))
def test_contract_at_length(case, check):
  check(case)
