"""Which variables a learned autoencoder takes, in which order, and which codec encodes what is sent in their stead."""

import numpy as np
import pytest

from tff_compress import autoencoders
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops as xp

UPDATE = {'kernel': np.arange(24, dtype=np.float32).reshape(4, 6), 'bias': np.arange(6, dtype=np.float32),
          'latent': np.ones(2, np.float32), 'filters': np.arange(16, dtype=np.float32).reshape(2, 2, 4)}
TEXT = ('size>=10 => concat | autoencoder:2,length=4,order=columns | uniform:bits=6 | pack; '
        'bias => uniform:bits=4 | pack; * => float16')


def test_it_takes_the_variables_of_its_rule_in_the_order_of_pieces():
  rule = autoencoders.LearnedRule(TEXT, UPDATE)
  assert (rule.sizes, rule.size, rule.length, rule.others) == ((24, 16), 40, 4, (1, 2))
  vector = rule.take(xp, list(UPDATE.values()))
  np.testing.assert_array_equal(vector,
                                np.concatenate([UPDATE['kernel'].T.ravel(), UPDATE['filters'].reshape(4, 4).T.ravel()]))
  for back, array in zip(rule.put(xp, vector, [UPDATE['bias'], UPDATE['latent']]), UPDATE.values()):
    np.testing.assert_array_equal(back, array)


def test_what_is_sent_is_encoded_by_the_rest_of_the_codec():
  codec, spec = autoencoders.LearnedRule(TEXT, UPDATE).behind
  assert [(t.name, t.shape) for t in spec.tensors] == [('latent_', (20,)), ('bias', (6,)), ('latent', (2,))]
  assert [str(s.pipeline) for s in codec.plan(spec).segments] == ['uniform:bits=6 | pack', 'uniform:bits=4 | pack',
                                                                  'float16']


@pytest.mark.tf
def test_what_was_learned_takes_its_place():
  rule = autoencoders.LearnedRule(TEXT, UPDATE)
  rng = np.random.default_rng(0)
  net = autoencoders.fit(autoencoders.linear(4, 2), rng.standard_normal((20, 40)), rule.sizes)
  codec = rule.learned(net)
  assert f'weights={net.digest}' in str(codec) and codec_lib(str(codec)) == codec
  keys = dict(seed=0, round=0, client=0)
  decoded = codec.decode(codec.encode(UPDATE, **keys), UPDATE, **keys)
  np.testing.assert_array_equal(decoded['latent'], UPDATE['latent'])
  # Another model's network is refused: never decoded with.
  other = autoencoders.fit(autoencoders.linear(4, 2), rng.standard_normal((20, 40)), (40,))
  with pytest.raises(codec_lib.CompressionError, match='other sizes'):
    rule.learned(other).encode(UPDATE, **keys)
  with pytest.raises(codec_lib.CompressionError, match='are not here'):
    codec_lib(str(codec).replace(net.digest, '0' * 32)).encode(UPDATE, **keys)


@pytest.mark.parametrize('text', ['int8', 'autoencoder:2,length=4 | float32',
                                  'size>=999 => concat | autoencoder:2 | float32; * => float16',
                                  'concat | autoencoder:2,length=4,weights=cosine | float32',
                                  'bias => autoencoder:2 | float32; * => concat | autoencoder:2 | float32'])
def test_a_codec_without_one_such_rule_is_a_typed_error(text):
  with pytest.raises(codec_lib.CodecError, match='such as|concat'):
    autoencoders.LearnedRule(text, UPDATE)


def test_one_variable_needs_no_concat():
  rule = autoencoders.LearnedRule('kernel => autoencoder:2 | float32; * => float16', UPDATE)
  assert rule.sizes == (24,) and rule.length == 24
