"""Properties over generated inputs: codec texts, symbols, updates, and any bytes in place of payloads and frames."""

import dataclasses
import fractions
import typing

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from tests.contract import cases
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import presets
from tff_compress.codec import stage as stage_lib
from tff_compress.codec.ops import numpy_ops

pytestmark = pytest.mark.thorough

SPEC = codec_lib.Spec.of(cases.update(40))
CODECS = [case.codec for case in cases.all_cases()]
CODERS = [kind for kind in stage_lib.registry().values()
          if (kind.domain, kind.codomain) == (stage_lib.Integers, stage_lib.Bytes)]
FRACTIONS = st.one_of(st.fractions(0, 1, max_denominator=10**6),
                      st.integers(1, 70000).map(lambda n: fractions.Fraction(1, n)))


def _parameter(kind):
  """Texts for one field of a stage: mostly valid, and sometimes not."""
  if isinstance(kind, tuple):
    return st.sampled_from(kind)
  return {int: st.one_of(st.integers(0, 9), st.sampled_from([16, 64, 256, 1024, 4096, 5000])).map(str),
          float: st.floats(0.3, 4).map(repr), str: st.sampled_from(['round', 'client']),
          fractions.Fraction: FRACTIONS.map(str)}[kind]


@st.composite
def configured(draw, kind):
  """The text of a stage or preset with some of its parameters."""
  hints = typing.get_type_hints(kind)
  parts = []
  for field in dataclasses.fields(kind):
    if field.default is dataclasses.MISSING or draw(st.booleans()):
      parts.append(f'{field.name}={draw(_parameter(field.metadata.get("kind", hints[field.name])))}')
  return kind.name + (':' + draw(st.sampled_from([',', ' , '])).join(parts) if parts else '')


def _between(domain, codomain):
  fitting = [kind for _, kind in sorted(stage_lib.registry().items())
             if (kind.domain, kind.codomain) == (domain, codomain)]
  return st.sampled_from(fitting).flatmap(configured)


Real, Integers, Bytes = stage_lib.Real, stage_lib.Integers, stage_lib.Bytes


@st.composite
def pipelines(draw):
  transforms = draw(st.lists(_between(Real, Real), max_size=3))
  if draw(st.booleans()):
    transforms.append(cases.ROTATION)
  ends = draw(st.one_of(st.tuples(_between(Real, Bytes)),
                        st.tuples(_between(Real, Integers), _between(Integers, Bytes))))
  return ' | '.join(draw(st.sampled_from([[], ['concat']])) + transforms + list(ends))


CONDITIONS = st.one_of(
    st.sampled_from(['*', '*/bias', 'dense/?ernel', '[ab]*', 'ü*', 'a:b', 'size']),
    st.tuples(st.sampled_from(['<', '<=', '>', '>=']), st.integers(0, 10**6)).map(lambda p: f'size {p[0]} {p[1]}'))


@st.composite
def codec_texts(draw):
  if draw(st.integers(0, 3)) == 0:
    return draw(st.sampled_from(sorted(presets.registry().values(), key=lambda k: k.name)).flatmap(configured))
  if draw(st.booleans()):
    return draw(pipelines())
  rules = draw(st.lists(st.tuples(st.lists(CONDITIONS, min_size=1, max_size=3), pipelines()), min_size=1, max_size=3))
  return ' ; '.join(' & '.join(when) + ' => ' + pipeline for when, pipeline in rules)


@hypothesis.given(codec_texts())
@hypothesis.settings(max_examples=400)
def test_the_text_of_a_codec_reads_back_as_the_codec(text):
  try:
    codec = codec_lib(text)
  except codec_lib.CodecError as error:
    hypothesis.event('refused')
    assert str(error)[-1] in '.?'
    return
  hypothesis.event('valid')
  again = codec_lib(str(codec))
  assert again == codec and hash(again) == hash(codec) and str(again) == str(codec)
  assert again.fingerprint(SPEC) == codec.fingerprint(SPEC)


@hypothesis.given(codec_texts(), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 2))
@hypothesis.settings(max_examples=150)
def test_every_valid_codec_encodes_and_decodes(text, seed, round_number, client):
  update = cases.update(70)
  keys = dict(seed=seed, round=round_number, client=client)
  try:
    codec = codec_lib(text)
    payload = codec.encode(update, **keys)
  except codec_lib.CodecError:  # Not valid, or no rule matches.
    return
  size = codec.plan(codec_lib.Spec.of(update)).payload_size
  assert size in (None, len(payload))
  decoded = codec.decode(payload, update, **keys)
  assert all(np.all(np.isfinite(decoded[name])) and decoded[name].shape == update[name].shape for name in update)


@hypothesis.given(st.one_of(st.text(max_size=80), st.text('hadmrupcks:|=>;,&*/<1240 -.e', max_size=60)))
@hypothesis.settings(max_examples=500)
def test_any_text_is_a_codec_or_a_codec_error(text):
  try:
    codec = codec_lib(text)
  except codec_lib.CodecError as error:
    assert str(error)[-1] in '.?' and len(str(error)) < 400
  else:
    assert codec_lib(str(codec)) == codec


@hypothesis.given(codec_texts(), st.data())
@hypothesis.settings(max_examples=200)
def test_a_damaged_codec_text_is_a_codec_or_a_codec_error(text, data):
  position = data.draw(st.integers(0, len(text)))
  removed = data.draw(st.integers(0, 4))
  text = text[:position] + data.draw(st.text(max_size=3)) + text[position + removed:]
  try:
    codec = codec_lib(text)
  except codec_lib.CodecError:
    return
  assert codec_lib(str(codec)) == codec


@st.composite
def symbols(draw):
  """(symbols, signal): any size from 1 on, any alphabet of up to 2^16 symbols on either side of zero, mostly skewed."""
  low = draw(st.one_of(st.sampled_from([0, -1, 1]), st.integers(-300, 300)))
  high = low + draw(st.one_of(st.integers(0, 5), st.integers(0, 255), st.integers(0, 65535)))
  elements = st.one_of(st.integers(low, high), st.sampled_from([low, high, min(max(0, low), high)]))
  array = draw(hnp.arrays(np.int32, st.integers(1, 200), elements=elements))
  repeats = draw(st.sampled_from([1, 1, 1, 50]))
  array = np.tile(array, repeats)
  return array, stage_lib.Integers(array.size, low, high)


@pytest.mark.parametrize('kind', CODERS, ids=lambda kind: kind.name)
def test_coders_give_back_any_symbols(kind):
  held = 0

  @hypothesis.given(symbols(), configured(kind))
  @hypothesis.settings(max_examples=120)
  def check(generated, text):
    nonlocal held
    array, signal = generated
    try:
      stage = codec_lib.grammar._stage(text)
      size = stage.output(signal).size
    except codec_lib.CodecError:
      return
    with np.errstate(all='ignore'):
      payload, side = stage.encode(numpy_ops, array, None, signal)
      assert payload.dtype == np.uint8 and payload.ndim == 1 and size in (None, payload.size)
      decoded = stage.decode(numpy_ops, payload, side, None, signal)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, array)
    held += 1

  check()
  assert held > 30


@pytest.mark.parametrize('kind', CODERS, ids=lambda kind: kind.name)
def test_coders_refuse_any_bytes_or_give_symbols_of_the_alphabet(kind):
  @hypothesis.given(symbols(), st.binary(max_size=300), st.data())
  @hypothesis.settings(max_examples=150)
  def check(generated, data, draw):
    array, signal = generated
    stage = codec_lib.grammar._stage(kind.name)
    try:
      stage.output(signal)
    except codec_lib.CodecError:
      return
    with np.errstate(all='ignore'):
      if draw.draw(st.booleans()):  # Noise in the place of some bytes of what an encoder wrote goes deeper.
        genuine = stage.encode(numpy_ops, array, None, signal)[0].tobytes()
        start = draw.draw(st.integers(0, len(genuine)))
        data = genuine[:start] + data[:4] + genuine[start + draw.draw(st.integers(0, 8)):]
      try:
        decoded = stage.decode(numpy_ops, np.frombuffer(data, np.uint8), {}, None, signal)
      except codec_lib.PayloadError:
        return
    assert decoded.shape == (signal.size,)
    assert np.all((decoded >= signal.low) & (decoded <= signal.high))

  check()


@hypothesis.given(st.sampled_from(CODECS), st.binary(max_size=400))
@hypothesis.settings(max_examples=300)
def test_any_bytes_decode_or_are_a_payload_error(codec, data):
  try:
    decoded = codec.decode(data, SPEC, seed=1, round=2, client=3)
  except codec_lib.PayloadError as error:
    assert str(error)[-1] in '.?'
    return
  assert [(t.name, t.shape, t.dtype) for t in codec_lib.Spec.of(decoded).tensors] == [
      (t.name, t.shape, t.dtype) for t in SPEC.tensors]


@hypothesis.given(st.sampled_from(CODECS), st.binary(max_size=60), st.booleans())
@hypothesis.settings(max_examples=300)
def test_any_bytes_are_a_frame_or_a_frame_error(codec, data, prefixed):
  data = b'TFC\2' * prefixed + data
  for read in (wire.read_header, lambda data: wire.unpack(codec, data, SPEC, seed=1)):
    try:
      read(data)
    except wire.FrameError as error:
      assert str(error)[-1] in '.?'
    else:
      raise AssertionError('noise passed for a frame')


@cases.ANY_MODEL
@hypothesis.given(st.sampled_from(CODECS), hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
    elements=st.floats(-2.0**64, 2.0**64, width=32, allow_nan=False, allow_subnormal=True)))
@hypothesis.settings(max_examples=300)
def test_any_finite_update_encodes_and_decodes(codec, array):
  try:
    payload = codec.encode({'a': array}, seed=3, round=2, client=1)
  except codec_lib.CodecError:  # No rule for it.
    return
  decoded = codec.decode(payload, {'a': array}, seed=3, round=2, client=1)['a']
  assert decoded.shape == array.shape and decoded.dtype == np.float32 and np.all(np.isfinite(decoded))
