"""Small runs in the shared subspace, in NumPy."""

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.spec import Spec
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.session import Session
from tff_compress.subspace.sums import SUMS

SEED = 11


def session_of(shapes=((24, 40), (40,)), *, seed=SEED, momentum=0.0, key_frames='int8', first_model='float32',
               sums='private', **rate):
  """A session of a model of these variables; half of the coordinates are kept, unless `rate` says otherwise."""
  spec = Spec.of({f'v{i}': np.zeros(shape, np.float32) for i, shape in enumerate(shapes)})
  rule = Rate(**{'noise': None, 'first': 0.5, 'floor': 1, **rate})
  runtime = NumpyRuntime(spec, seed, codec_lib(key_frames), codec_lib(first_model))
  return Session(spec.parameters, seed, rule, momentum, runtime, SUMS[sums])


def vector(session, seed=0, deviation=1.0):
  """float32[d], normal."""
  return np.random.default_rng(seed).normal(0, deviation, session.size).astype(np.float32)


def same(session, one, other):
  """Whether two copies are the same in every bit."""
  return session.content(xp, one).tobytes() == session.content(xp, other).tobytes()
