"""The contract: what is demanded of every codec. Each check is a function of one `cases.Case`.

The statistical checks draw from fixed keys, so their outcome never changes from run to run: a z-value beyond its
threshold is a mistake in a codec, not bad luck.
"""

import contextlib
import functools
import struct
import tracemalloc

import numpy as np

from tests.contract import cases
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import keys as keys_lib
from tff_compress.codec import pipeline as pipeline_lib
from tff_compress.codec.ops import numpy_ops

THRESHOLD = 5.0
"""z-values beyond this fail."""

# Below this share of ||x||^2 an error is rounding of the decoder's float arithmetic.
_ROUNDING = 1e-12


def vector(arrays):
  """All float variables as one float64 vector."""
  floats = [np.asarray(a, np.float64).reshape(-1) for a in arrays.values() if np.asarray(a).dtype.kind == 'f']
  return np.concatenate(floats) if floats else np.zeros(0)


def encode(case, update, seed=cases.SEED, round=cases.ROUND, client=cases.CLIENT):
  return case.codec.encode(update, seed=seed, round=round, client=client)


def decode(case, payload, spec, seed=cases.SEED, round=cases.ROUND, client=cases.CLIENT):
  return case.codec.decode(payload, spec, seed=seed, round=round, client=client)


@functools.lru_cache(maxsize=8)
def _errors(case, same_round):
  """(x, [n, d] errors of n decodes of it): a client each, in one round or in a round each."""
  draws = 40 if case.lossless else 100
  update = case.update(400 if case.lossless else 1500)
  x = vector(update)
  errors = []
  for i in range(draws):
    round_number = 3 if same_round else i
    payload = encode(case, update, round=round_number, client=i)
    errors.append(vector(decode(case, payload, update, round=round_number, client=i)) - x)
  return x, np.asarray(errors)


def _segments(case, update):
  """The compressed segments of the case's plan."""
  return [s for s in case.codec.plan(codec_lib.Spec.of(update)).segments if s.pipeline is not None]


def _unbiased(case, update):
  return all(s.pipeline.unbiased for s in _segments(case, update))


def _shares_a_mask(case, update):
  """Whether what all clients of a round share loses something: then the clients' errors have a part in common."""
  return any(s.pipeline.signals(s.size)[s.pipeline.prefix].size < s.size for s in _segments(case, update))


# -- what comes back --------------------------------------------------------------------------------------------------


def names_shapes_and_dtypes_come_back(case):
  update = case.update(64)
  update['half'] = np.asarray([0.5, -65504.0, 65504.0], np.float16)
  update['double'] = np.linspace(-1, 1, 9)
  for dtype in ('int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64'):
    limits = np.iinfo(dtype)
    update[f'whole/{dtype}'] = np.asarray([limits.min, limits.max], dtype)
  decoded = decode(case, encode(case, update), update)
  assert list(decoded) == list(update), 'names or their order changed'
  for name, value in update.items():
    assert decoded[name].shape == value.shape and decoded[name].dtype == value.dtype, f'{name} changed its type'
    if value.dtype.kind != 'f':
      assert np.array_equal(decoded[name], value), f'{name} is not a float and must come back exactly'
    else:
      assert np.all(np.isfinite(decoded[name])), f'{name} is not finite'
  decoded['half'][...] = 0  # Results belong to the caller.


def error_is_within_its_declared_bound(case):
  """The mean of ||x^ - x||^2 over keys is at most the declared bound times ||x||^2, segment by segment.

  A stage that declares none, such as signs without a scale, is held to nothing here.
  """
  x, errors = _errors(case, False)
  bounds = []
  for segment in _segments(case, case.update(400 if case.lossless else 1500)):
    bounds.append(segment.pipeline.nmse_bound(segment.size))
  if None in bounds:
    return
  nmse = np.sum(errors**2, axis=1) / np.sum(x**2)
  # The bound holds for each segment, so the largest holds for the whole.
  spread = THRESHOLD * np.std(nmse) / np.sqrt(len(nmse))
  assert np.mean(nmse) <= max(bounds) * (1 + 1e-3) + spread + _ROUNDING, (
      f'mean NMSE {np.mean(nmse):.4g} exceeds the declared {max(bounds):.4g}')


def constant_zero_and_spiked_vectors_stay_within_the_bound(case):
  """The inputs on which ranges, scales and thresholds degenerate."""
  size = max(300, case.large)
  spike = np.zeros(size, np.float32)
  spike[size // 3] = 1e4
  spiked = cases.values(size) + spike
  for what, x, draws in (('zeros', np.zeros(size, np.float32), 2), ('a constant', np.full(size, 0.3, np.float32), 12),
                         ('one huge outlier', spiked, 12), ('one value', spike, 12)):
    update = {'x': x}
    segment, = _segments(case, update)
    bound = segment.pipeline.nmse_bound(size)
    norm = np.sum(x.astype(np.float64)**2)
    errors = []
    for i in range(draws):
      decoded = decode(case, encode(case, update, round=i, client=i), update, round=i, client=i)['x']
      assert np.all(np.isfinite(decoded)), what
      if bound is None:
        continue
      errors.append(np.sum((decoded.astype(np.float64) - x)**2))
    if bound is None:
      continue
    if what == 'zeros':
      assert not np.any(errors), 'zeros must come back as zeros'
    else:
      # A mask keeps a spike in few draws, of which these may hold more than their share: a wide margin there.
      spread = THRESHOLD * max(np.std(errors) / np.sqrt(draws), 0 if bound < 1 else bound * norm / np.sqrt(draws))
      assert np.mean(errors) <= (bound * (1 + 1e-3) + 1e-9) * norm + spread, f'{what}: above the declared bound'


def every_shape_comes_back(case):
  """Sizes around the powers of two, scalars, several dimensions and none, in one message."""
  sizes = [0, 1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 99, 101, 127, 129, 255, 256, 257, 1023, 1024, 1025]
  shapes = [(n,) for n in sizes] + [(), (1, 1, 1), (3, 5, 7), (2, 0, 4), (4, 1, 64), (3, 3, 2, 5), (5, 3, 0, 1),
                                    (1, 1, 4, 2)]
  update = {f'v{i}': cases.values(int(np.prod(shape)), i).reshape(shape) for i, shape in enumerate(shapes)}
  decoded = decode(case, encode(case, update), update)
  for name, value in update.items():
    assert decoded[name].shape == value.shape, name
    assert np.all(np.isfinite(decoded[name])), name
  for size in (0, 1, 3):  # Alone, so that nothing else in the message keeps them alive where variables are joined.
    alone = {'v': cases.values(size)}
    assert decode(case, encode(case, alone), alone)['v'].shape == (size,)


def extreme_magnitudes_come_back_finite(case):
  size = 100 + case.large
  ramp = cases.values(size)
  tiny = np.float32(1e-44) * np.arange(size, dtype=np.float32)
  edges = {
      'largest': np.where(ramp > 0, np.float32(2.0**64), np.float32(-2.0**64)),
      'one largest': np.where(np.arange(size) == 7, np.float32(-2.0**64), ramp),
      'denormal': tiny,
      'denormal and usual': np.where(np.arange(size) % 3 == 0, ramp, tiny),
      'around 2^-64': np.float32(2.0**-64) * ramp * 2,
      'smallest normal': np.full(size, np.finfo(np.float32).tiny),
      'negative zero': np.where(np.arange(size) % 2 == 0, np.float32(-0.0), np.float32(0)),
  }
  for what, x in edges.items():
    update = {'x': x.astype(np.float32)}
    segment, = _segments(case, update)
    decoded = decode(case, encode(case, update), update)['x'].astype(np.float64)
    assert np.all(np.isfinite(decoded)), what
    if segment.pipeline.nmse_bound(size) is None:
      continue
    # Whatever a mask multiplies by, nothing may grow beyond the norm times what one kept value stands for.
    norm = np.sqrt(np.sum(update['x'].astype(np.float64)**2))
    largest = norm * (1 + segment.pipeline.nmse_bound(size))
    assert np.max(np.abs(decoded)) <= 2 * largest + 2.0**-64, f'{what}: decoded to {np.max(np.abs(decoded)):.3g}'


def values_that_cannot_be_sent_are_refused(case):
  for bad in (np.nan, np.inf, -np.inf, np.float32(2.0**64) * np.float32(1.001), np.float64(1e300)):
    for name in ('dense/kernel', 'dense/bias', 'scale'):
      update = case.update(64)
      value = update[name].astype(type(bad)) if isinstance(bad, np.floating) else update[name].copy()
      value.reshape(-1)[-1] = bad
      update[name] = value
      _raises(codec_lib.UpdateError, encode, case, update)


# -- randomness -------------------------------------------------------------------------------------------------------


def is_unbiased_where_it_says_so(case):
  """The mean of the decodes over rounds and clients is x, in the norm and along fixed directions."""
  update = case.update(400 if case.lossless else 1500)
  if not _unbiased(case, update):
    return
  x, errors = _errors(case, False)
  if np.mean(np.sum(errors**2, axis=1)) <= _ROUNDING * np.sum(x**2):
    return
  z = _common_part(errors)[1]
  assert z < THRESHOLD, f'the errors of independent messages point the same way: z = {z:.1f}'
  directions = [x, np.ones_like(x), np.sign(x), np.eye(1, x.size, int(np.argmax(np.abs(x))))[0]]
  for direction in directions:
    along = errors @ direction
    if np.std(along) > np.sqrt(_ROUNDING) * np.linalg.norm(x) * np.linalg.norm(direction):
      z = np.mean(along) / (np.std(along) / np.sqrt(len(along)))
      assert abs(z) < THRESHOLD, f'biased along a fixed direction: z = {z:.1f}'


def error_of_the_mean_falls_as_one_over_n(case):
  """All clients of one round send the *same* update: what they share in randomness does not average out.

  Without a shared mask the mean of n messages has 1/n of the error of one. With one, the common error stays: the
  server is left with the error of the mask alone, however many clients there are.
  """
  update = case.update(400 if case.lossless else 1500)
  if not _unbiased(case, update):
    return
  x, errors = _errors(case, True)
  single = np.mean(np.sum(errors**2, axis=1))
  if single <= _ROUNDING * np.sum(x**2):
    return
  common, z = _common_part(errors)
  if not _shares_a_mask(case, update):
    assert z < THRESHOLD, f'clients of a round have {common / single:.3g} of their error in common: z = {z:.1f}'
    return
  alone = Prefix(case)
  decoded = vector(decode(alone, encode(alone, update, round=3), update, round=3))
  mask = np.sum((decoded - x)**2)
  assert mask > 0.01 * single, 'a shared mask loses a part of the update'
  mean = np.sum(np.mean(errors, axis=0)**2)
  # E||mean error||^2 = mask + (single - mask) / n
  expected = mask + (single - mask) / len(errors)
  assert 0.8 * expected < mean < 1.25 * expected, f'error of the mean {mean:.4g}, expected {expected:.4g}'


def _common_part(errors):
  """Estimates ||E e||^2 from the inner products of different errors: (estimate, its z-value)."""
  gram = errors @ errors.T
  products = gram[np.triu_indices(len(errors), 1)]
  return np.mean(products), np.mean(products) / (np.std(products) / np.sqrt(products.size) + 1e-300)


class Prefix:
  """A case's codec up to what may be summed, sent as float32: the shared mask alone."""

  def __init__(self, case):
    rules = []
    for rule in case.codec.rules:
      pipeline = rule.pipeline
      end = codec_lib('float32').rules[0].pipeline.stages
      shortened = pipeline_lib.Pipeline(pipeline.stages[:pipeline.prefix] + end, pipeline.joined)
      rules.append(type(rule)(rule.conditions, shortened))
    self.codec = codec_lib.Codec(tuple(rules))


class _Asked:
  """Keys that note which streams are asked for."""

  def __init__(self):
    self.requests = set()
    self._keys = keys_lib.MessageKeys(cases.SEED, cases.ROUND, cases.CLIENT)

  def key(self, *request):
    self.requests.add(request)
    return self._keys.key(*request)


def _streams(case, update):
  """[set of (scope, name, purpose, chunk)]: the keys each stage of each segment asks for when it encodes."""
  tensors = codec_lib.Spec.of(update).tensors
  streams = []
  for segment in _segments(case, update):
    values = np.concatenate([update[tensors[i].name].reshape(-1) for i in segment.tensors])
    pipeline = segment.pipeline
    all_draws = pipeline._draws(numpy_ops, None, segment.name)
    # Entropy coders draw nothing.
    inline = pipeline.stages[:-1] if pipeline.entropy_coder else pipeline.stages
    for stage, signal, draws in zip(inline, pipeline.signals(segment.size), all_draws):
      draws._keys = _Asked()
      with np.errstate(all='ignore'):
        values, _ = stage.encode(numpy_ops, values, draws, signal)
      streams.append(draws._keys.requests)
  return streams


def same_keys_give_the_same_bytes_and_others_do_not(case):
  update = case.update(200)
  payload = encode(case, update)
  assert encode(case, {name: value.copy() for name, value in update.items()}) == payload
  streams = _streams(case, update)
  scopes = {scope for stream in streams for scope, *_ in stream}
  assert (encode(case, update, seed=cases.SEED + 1) != payload) == bool(scopes)
  assert (encode(case, update, round=cases.ROUND + 1) != payload) == bool(scopes)
  assert (encode(case, update, client=cases.CLIENT + 1) != payload) == ('client' in scopes)
  assert len(set().union(*streams)) == sum(map(len, streams)), 'two stages draw from one stream'


def linear_prefix_decodes_the_sum(case):
  """decode(sum of the prefixes) = sum of the decodes, over clients with different updates.

  A summable stage that is not linear, such as the median of sketches, decodes the sum as it decodes the sum of the
  updates; held to that where nothing behind it adds an error.
  """
  updates = [case.update(600, seed=10 * i) for i in range(4)]
  spec = codec_lib.Spec.of(updates[0])
  plan = case.codec.plan(spec)
  sums, total = None, 0
  for client, update in enumerate(updates):
    payload = np.frombuffer(encode(case, update, client=client), np.uint8)
    keys = keys_lib.MessageKeys(cases.SEED, cases.ROUND, client)
    values = plan.decode_to_prefixes(numpy_ops, payload, keys)
    sums = values if sums is None else [a + b for a, b in zip(sums, values)]
    total = total + vector(decode(case, payload.tobytes(), spec, client=client))
  # No client's own number is needed any more: only what the round shares.
  keys = keys_lib.MessageKeys(cases.SEED, cases.ROUND, codec_lib.SHARED_CLIENT)
  arrays = plan.decode_prefixes(numpy_ops, sums, keys)
  decoded = vector({t.name: a for t, a in zip(spec.tensors, arrays)})
  segments = _segments(case, updates[0])
  if not all(stage.linear for s in segments for stage in s.pipeline.stages[:s.pipeline.prefix]):
    if all(str(stage) == 'float32' for s in segments for stage in s.pipeline.stages[s.pipeline.prefix:]):
      summed = {t.name: sum(update[t.name] for update in updates) for t in spec.tensors if t.is_float}
      total = vector(decode(case, encode(case, {**updates[0], **summed}), spec))
      assert np.linalg.norm(decoded - total) <= 1e-3 * np.linalg.norm(total)
    return
  assert np.linalg.norm(decoded - total) <= 1e-5 * np.linalg.norm(total)


# -- bytes ------------------------------------------------------------------------------------------------------------


def sizes_said_are_sizes_sent(case):
  for size in (0, 1, 9, 200):
    update = cases.update(size) if size else {'x': np.zeros(0, np.float32)}
    plan = case.codec.plan(codec_lib.Spec.of(update))
    payload = encode(case, update)
    if plan.payload_size is not None:
      assert plan.payload_size == len(payload), f'{len(payload)} bytes were sent, {plan.payload_size} were announced'
    frame = wire.pack(case.codec, update, seed=cases.SEED, round=cases.ROUND, client=cases.CLIENT)
    assert len(frame) == len(payload) + wire.FRAME_OVERHEAD
    assert wire.read_header(frame).payload == payload


def cut_or_lengthened_payloads_are_refused(case):
  update = case.update(64)
  payload = encode(case, update)
  spec = codec_lib.Spec.of(update)
  with bounded_memory(spec, payload):
    for length in range(len(payload)):
      _raises(codec_lib.PayloadError, decode, case, payload[:length], spec)
    for tail in (b'\0', b'\1', payload, bytes(100_000), b'\xff' * 100_000):
      _raises(codec_lib.PayloadError, decode, case, payload + tail, spec)


def damaged_payloads_are_refused_or_decode_to_numbers(case):
  """Flipped bits, lengths and scales no encoder writes, noise: a typed error or finite values, in bounded memory."""
  update = case.update(64)
  payload = encode(case, update)
  spec = codec_lib.Spec.of(update)
  rng = np.random.default_rng(1)
  damaged = []
  positions = rng.permutation(8 * len(payload))[:50]
  # The first and last bytes hold lengths, scales and filling: those bits are tried one by one.
  count = 8 * len(payload)
  for bit in sorted({*range(min(64, count)), *range(max(0, count - 16), count), *positions}):
    changed = bytearray(payload)
    changed[bit // 8] ^= 1 << bit % 8
    damaged.append(bytes(changed))
  patterns = [struct.pack('<I', v) for v in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1 << 24, 1, 0)]
  patterns += [struct.pack('<f', v) for v in (np.nan, np.inf, -np.inf, 3e38, -1.0)]
  patterns += [b'\xc0\x7f', b'\x80\x7f', b'\x7f\x7f', b'\x80\xff', b'\x80\xbf']  # The same as bfloat16.
  places = sorted({*range(min(8, len(payload))), *rng.integers(0, len(payload), 8)})
  lengths = []
  for i, pattern in enumerate(patterns):
    for place in places:
      changed = (payload[:place] + pattern + payload[place + len(pattern):])[:len(payload)]
      (lengths if i < 4 else damaged).append(changed)
  noise = [rng.bytes(len(payload)) for _ in range(10)] + [b'\xff' * len(payload), bytes(len(payload))]

  def try_all(payloads):
    for data in payloads:
      try:
        decoded = decode(case, data, spec)
      except codec_lib.PayloadError:
        continue
      assert np.all(np.isfinite(vector(decoded))), 'a damaged payload decoded to something that is not a number'

  try_all(damaged + noise)
  # Memory is what large lengths are after; watching it takes time.
  with bounded_memory(spec, payload):
    try_all(lengths + noise[-2:])


def damaged_frames_are_refused(case):
  """Every single flipped bit and every cut of a frame; a few suffice for all codecs but the first ones."""
  update = {'w': cases.values(12), 'n': np.asarray([3], np.int32)}
  names = dict(seed=cases.SEED, round=cases.ROUND, client=cases.CLIENT)
  frame = wire.pack(case.codec, update, **names)
  decoded, header = wire.unpack(case.codec, frame, update, **names)
  assert (header.round, header.client) == (cases.ROUND, cases.CLIENT)
  assert np.array_equal(decoded['n'], update['n'])
  for bit in range(8 * len(frame)):
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    _raises(codec_lib.PayloadError, wire.unpack, case.codec, bytes(changed), update, **names)
  for length in range(len(frame)):
    _raises(codec_lib.PayloadError, wire.unpack, case.codec, frame[:length], update, **names)
  _raises(codec_lib.PayloadError, wire.unpack, case.codec, frame + b'\0', update, **names)


@contextlib.contextmanager
def bounded_memory(spec, payload):
  """Fails if more than a fixed multiple of what the model and the genuine payload take is allocated at a time."""
  started = not tracemalloc.is_tracing()
  if started:
    tracemalloc.start()
  tracemalloc.reset_peak()
  before = tracemalloc.get_traced_memory()[0]
  try:
    yield
    peak = tracemalloc.get_traced_memory()[1] - before
  finally:
    if started:
      tracemalloc.stop()
  limit = 1_000_000 + 200 * spec.parameters + 300 * len(payload)
  assert peak <= limit, f'{peak} bytes were allocated for a payload of {len(payload)} bytes'


def _raises(error, function, *args, **names):
  """Calls the function, which must raise an error of this type and no other, with one sentence that fits on a line."""
  try:
    function(*args, **names)
  except error as raised:
    text = str(raised)
    assert text.endswith('.') and '\n' not in text and len(text) < 300, f'not one sentence: {text!r}'
  else:
    raise AssertionError(f'{error.__name__} was expected')


ALL = (
    names_shapes_and_dtypes_come_back,
    error_is_within_its_declared_bound,
    constant_zero_and_spiked_vectors_stay_within_the_bound,
    every_shape_comes_back,
    extreme_magnitudes_come_back_finite,
    values_that_cannot_be_sent_are_refused,
    is_unbiased_where_it_says_so,
    error_of_the_mean_falls_as_one_over_n,
    same_keys_give_the_same_bytes_and_others_do_not,
    linear_prefix_decodes_the_sum,
    sizes_said_are_sizes_sent,
    cut_or_lengthened_payloads_are_refused,
    damaged_payloads_are_refused_or_decode_to_numbers,
    damaged_frames_are_refused,
)
