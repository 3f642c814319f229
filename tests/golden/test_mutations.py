"""The golden frames find errors: each of a list of deliberate ones changes a frame or what one decodes to."""

import pytest

from tests.golden import mutations
from tests.golden import regenerate
from tff_compress.codec import floats


@pytest.mark.thorough
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('mutation', mutations.MUTATIONS, ids=str)
def test_every_deliberate_error_is_found(mutation):
  with mutations.made(mutation):
    assert mutations.finder(mutation, regenerate.goldens()) is not None, 'no golden frame differs'


@pytest.mark.thorough
def test_the_product_is_as_it_was_afterwards():
  for mutation in mutations.MUTATIONS[:40]:
    with mutations.made(mutation):
      pass
  assert floats.SMALLEST == 2.0**-64
  assert not any(mutations.finds(golden) for golden in regenerate.goldens() if golden.update == 'ordinary')


def test_an_error_whose_place_is_gone_is_said_to_be():
  with pytest.raises(ValueError, match='0 times .* change the mutation'):
    with mutations.made(mutations.Mutation('rule', 'codec.floats', 'no such text', '')):
      pass
