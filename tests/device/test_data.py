"""A client's examples by a short text."""

import numpy as np
import pytest

from tff_compress.codec.errors import CompressionError
from tff_compress.device import data
from tff_compress.simulation import datasets
from tff_compress.simulation import splits


def test_they_are_those_of_the_same_client_in_a_run():
  x, y = data.load('digits:client=3,of=20')
  digits = datasets.load('digits')
  chosen = splits.split('dirichlet:0.5', digits.labels, 20, 0)[3]
  assert np.array_equal(x, digits.x_train[chosen]) and np.array_equal(y, digits.y_train[chosen])
  assert len(data.load('digits:client=3,of=20,split=iid,seed=1')[0]) in (71, 72)


@pytest.mark.parametrize('text', ['digits', 'digits:client=3', 'digits:client=20,of=20', 'digits:client=x,of=20',
                                  'digits:client=1,of=2,of=3', 'digits:client=1,of=2,size=3', 'digit:client=1,of=2',
                                  'digits:client=1,of=2,split=thin'])
def test_what_is_no_such_text_is_one_sentence(text):
  with pytest.raises(CompressionError) as error:
    data.load(text)
  assert '\n' not in str(error.value)
