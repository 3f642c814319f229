"""Encoder and decoder files compute what NumPy computes, bit for bit, in both interpreters.

`everything` is one codec whose rules hold the real-valued half of every pipeline of the contract suite, each with
variables of its own, so that one conversion covers every registered stage and preset.
"""

import functools

import numpy as np
import pytest

from tests.contract import cases
from tests.golden import regenerate
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import random
from tflite_export import encoder
from tflite_export import flatbuffer
from tflite_export import interpreters

KEYS = {'seed': cases.SEED, 'round': cases.ROUND, 'client': cases.CLIENT}

pytestmark = pytest.mark.xdist_group('encoder')


def everything():
  """(codec, update): a rule for every pipeline of the contract suite, but for those that differ in their coder alone.

  Left out are quantizers that send a varying number of values, or of values beside the symbols, which no file can.
  """
  pipelines = {}
  for case in cases.byte_cases():
    for rule in case.codec.rules:
      pipeline = rule.pipeline
      signals = pipeline.signals(1)
      sides = [side for stage, signal in zip(pipeline.stages, signals) for side in stage.side(signal)]
      if signals[pipeline.coder].size is None or any(side.size is None for side in sides):
        continue
      pipelines.setdefault((pipeline.joined, pipeline.stages[:pipeline.coder]), pipeline)
  rules, update = [], {}
  for number, pipeline in enumerate(pipelines.values()):
    rules.append(f'{number}/* => {pipeline}')
    values = cases.update(2100, number)
    update[f'{number}/kernel'] = values['dense/kernel']
    if pipeline.joined or number % 5 == 0:
      update |= {f'{number}/{name}': values[name] for name in ('dense/bias', 'scale', 'nothing')}
    if number % 10 == 0:
      update |= {f'{number}/{name}': values[name] for name in ('steps', 'frozen')}
  return codec_lib('; '.join(rules)), update


def spiky(update):
  """What runtimes treat differently: denormals, negative zeros, blocks of zeros, huge and tiny values."""
  result = {}
  for name, value in update.items():
    flat = value.reshape(-1).copy()
    if flat.size > 100:
      flat[:40] = 0
      flat[3] = -0.0
      flat[50:55] = [1e-44, -1e-41, 1e-30, -3e15, 2e15]
    result[name] = flat.reshape(value.shape)
  return result


def lossless(update):
  return {name: value for name, value in update.items() if value.dtype.kind != 'f'}


@functools.lru_cache
def exported(kind, codec, spec, **options):
  return {'encode': encoder.export_encoder, 'decode': encoder.export_decoder}[kind](codec, spec, **options)


@functools.lru_cache
def interpreter(export, name):
  with interpreters.quiet():
    return interpreters.Interpreter(export.data, name)


def payload(export, name, update, residuals=None):
  """(what `finish` makes of an encoder's outputs, the outputs)"""
  outputs = interpreter(export, name).run('encode', **export.update_inputs(update), **export.random_inputs(**KEYS),
                                          **(residuals or {}))
  return encoder.finish(export.layout.codec, export.layout.spec, outputs, lossless(update)), outputs


def assert_same(made, expected, layout):
  """Equal bytes; says in which segments they are not."""
  if made == expected:
    return
  assert len(made) == len(expected)
  parts = [layout.plan.split(codec_lib.codec.numpy_ops, np.frombuffer(p, np.uint8)) for p in (made, expected)]
  raise AssertionError([f'{segment.name}: {segment.pipeline}' for segment, a, b in zip(layout.plan.segments, *parts)
                        if not all(map(np.array_equal, a, b))])


@pytest.mark.parametrize('name', interpreters.NAMES)
@pytest.mark.parametrize('change', [dict, spiky], ids=['plain', 'spiky'])
def test_every_stage_makes_the_payload_of_numpy(name, change):
  codec, update = everything()
  export = exported('encode', codec, codec_lib.Spec.of(update))
  update = change(update)
  made, outputs = payload(export, name, update)
  assert_same(made, codec.encode(update, **KEYS), export.layout)
  assert outputs['valid'] == 1


def test_no_values_are_folded_into_the_file():
  codec, update = everything()
  for kind in ('encode', 'decode'):
    export = exported(kind, codec, codec_lib.Spec.of(update))
    # The table of signs has 8 KiB; a folded constant of a segment's size would have more.
    assert max(len(b.data) for b in flatbuffer.load(export.data).buffers if b.data is not None) <= 8192


@pytest.mark.parametrize('name', interpreters.NAMES)
def test_every_stage_decodes_to_the_values_of_numpy(name):
  codec, update = everything()
  spec = codec_lib.Spec.of(update)
  export = exported('decode', codec, spec)
  sent = codec.encode(update, **KEYS)
  inputs, others = encoder.start(codec, spec, sent)
  outputs = interpreter(export, name).run('decode', **inputs, **export.random_inputs(**KEYS))
  known = codec.decode(sent, spec, **KEYS)
  assert outputs['valid'] == 1
  for i, array in export.layout.variables.items():
    expected = known[spec.tensors[i].name].reshape(-1)
    segment, = [part.segment for part in export.layout.parts if i in part.variables]
    # A rotation is undone by sums of floats, whose order differs; everything else is the same operations.
    rotated = any(stage.isotropic for stage in segment.pipeline.stages)
    scale = np.max(np.abs(expected), initial=1e-30)
    np.testing.assert_allclose(outputs[array.name] / scale, expected / scale, rtol=0, atol=3e-7 if rotated else 0)
  assert set(others) == set(lossless(update))
  assert all(np.array_equal(value, update[variable]) for variable, value in others.items())


@pytest.mark.parametrize('case', [case for case in cases.byte_cases() if case.name in (
    'drive.bits-2', 'larger.rules', 'rans.uniform-bits-4', 'topk.1-100')], ids=str)
def test_frames_are_the_golden_ones(case):
  update = regenerate.update_of(regenerate.of_case(case))
  golden = wire.read_header((regenerate.FOLDER / f'{case.name}.tfc').read_bytes())
  export = exported('encode', case.codec, codec_lib.Spec.of(update))
  for name in interpreters.NAMES:
    assert_same(payload(export, name, update)[0], golden.payload, export.layout)
  assert bytes.fromhex(export.describe()['fingerprint']) == golden.fingerprint


@pytest.mark.parametrize('name', interpreters.NAMES)
def test_a_model_of_a_million_parameters_fits_in_100_kb(name):
  shapes = {'conv1/kernel': (3, 3, 1, 32), 'conv1/bias': (32,), 'conv2/kernel': (3, 3, 32, 64), 'conv2/bias': (64,),
            'dense1/kernel': (9216, 128), 'dense1/bias': (128,), 'logits/kernel': (128, 10), 'logits/bias': (10,)}
  rng = np.random.default_rng(0)
  update = {variable: (0.01 * rng.standard_normal(shape)).astype(np.float32) for variable, shape in shapes.items()}
  codec = codec_lib('hadamard | uniform:bits=2 | pack')
  export = exported('encode', codec, codec_lib.Spec.of(update))
  assert export.layout.spec.parameters == 1_199_882
  assert len(export.data) <= 100_000
  assert_same(payload(export, name, update)[0], codec.encode(update, **KEYS), export.layout)


SMALL = {'dense/kernel': cases.values(1300).reshape(13, 100), 'gate': cases.values(40, 1).astype(np.float16),
         'steps': np.asarray([3, -1], np.int16)}


@pytest.mark.parametrize('words', ['inside', 'passed'])
@pytest.mark.parametrize('name', interpreters.NAMES)
def test_error_feedback_carries_what_a_message_leaves_out(name, words):
  codec, spec = codec_lib('hadamard | subsample:1/4 | uniform:bits=2 | rans'), codec_lib.Spec.of(SMALL)
  export = exported('encode', codec, spec, words=words, error_feedback=True)
  residuals = {array.name: np.linspace(-0.1, 0.2, array.size, dtype=np.float32)
               for array in export.layout.residuals.values()}
  made, outputs = payload(export, name, SMALL, residuals)
  effective = {'dense/kernel': SMALL['dense/kernel'] + residuals['residual_0'].reshape(13, 100),
               'gate': SMALL['gate'].astype(np.float32) + residuals['residual_1'], 'steps': SMALL['steps']}
  # The residual makes the float16 variable a float32 one: the keys and the payload are those of its name, all the same.
  assert made == codec.encode(effective, **KEYS)
  decoded = codec.decode(made, codec_lib.Spec.of(effective), **KEYS)
  for i, variable in enumerate(('dense/kernel', 'gate')):
    left = effective[variable] - decoded[variable]
    assert np.abs(left).max() > 0.01
    tolerance = 1e-6 * np.abs(decoded[variable]).max()
    np.testing.assert_allclose(outputs[f'residual_{i}'], left.reshape(-1), rtol=0, atol=tolerance)


def test_words_are_those_of_the_streams_and_nothing_else_is_asked_for():
  codec, spec = codec_lib('hadamard | subsample:1/4 | uniform:bits=2 | rans'), codec_lib.Spec.of(SMALL)
  export = exported('encode', codec, spec, words='passed', error_feedback=True)
  assert [(r.scope, r.name, r.purpose, r.chunk) for r in export.requests] == [
      (scope, variable, purpose, 0) for variable in ('dense/kernel', 'gate')
      for scope, purpose in (('client', 3), ('round', 1), ('round', 2), ('client', 4))]
  # Kernel: two steps of 1024 dithers, two to a word; 2 * 1024 signs, 32 to a word; one of every 4; 325 dithers.
  assert [r.words for r in export.requests][:4] == [1024, 64, 325, 163]
  keys = encoder.derive(export.requests, **KEYS)
  for row, client, purpose in ((1, random.SHARED_CLIENT, 1), (3, cases.CLIENT, 4)):
    expected = random.derive_key(cases.SEED, cases.ROUND, client, 'dense/kernel', purpose)
    np.testing.assert_array_equal(keys[row], expected)
  vectors = np.asarray([0xC4A0E45C, 0xD62362B2, 0x5F50CDF9], np.uint32).view(np.int32)
  np.testing.assert_array_equal(encoder.draw(encoder.Request('round', '', 1, 0, 3), np.zeros(2, np.int32)), vectors)


@pytest.mark.parametrize('name', interpreters.NAMES)
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf, 2.0**64 * 1.01, -1e30])
def test_what_the_codec_refuses_is_not_valid(name, bad):
  codec, spec = codec_lib('hadamard | subsample:1/4 | uniform:bits=2 | rans'), codec_lib.Spec.of(SMALL)
  export = exported('encode', codec, spec, words='passed', error_feedback=True)
  residuals = {array.name: np.zeros(array.size, np.float32) for array in export.layout.residuals.values()}
  kernel = SMALL['dense/kernel'].copy()
  kernel[12, 99] = -2.0**64
  assert payload(export, name, {**SMALL, 'dense/kernel': kernel}, residuals)[1]['valid'] == 1
  kernel[7, 3] = bad
  with pytest.raises(codec_lib.UpdateError, match='NaN'):
    payload(export, name, {**SMALL, 'dense/kernel': kernel}, residuals)


@pytest.mark.parametrize('name', interpreters.NAMES)
def test_a_decoder_says_that_scales_are_no_numbers(name):
  spec = codec_lib.Spec.of({'w': np.zeros(50, np.float32), 'h': np.zeros(50, np.float16), 'f': np.zeros(9, np.float32)})
  codec = codec_lib('h => float16; f => float32; * => uniform:bits=4 | pack')
  export = exported('decode', codec, spec)
  update = {'w': cases.values(50), 'h': np.full(50, 65504, np.float16), 'f': cases.values(9)}
  inputs, _ = encoder.start(codec, spec, codec.encode(update, **KEYS))

  def run(**changes):
    return interpreter(export, name).run('decode', **{**inputs, **changes}, **export.random_inputs(**KEYS))

  outputs = run()
  assert outputs['valid'] == 1 and outputs['update_1'].max() == 65504
  for array, value in (('side_0_0_high', [0x7FC0]), ('side_0_0_high', [0xBF80]), ('side_0_0_low', [0xFF80]),
                       ('side_1_0_exponent', [215]), ('values_2', np.full(9, np.nan, np.float32).view(np.uint8)),
                       ('values_1', np.full(50, np.inf, np.float16).view(np.uint8))):
    assert run(**{array: np.asarray(value, inputs[array].dtype)})['valid'] == 0, array
  # A scale that leads beyond the largest float16.
  largest = np.full(50, 0x7BFF, np.uint16).view(np.uint8)
  assert run(values_1=largest, side_1_0_exponent=np.asarray([170], np.int32))['update_1'].max() == 65504


def test_payloads_that_do_not_fit_are_refused_before_the_decoder():
  spec = codec_lib.Spec.of(SMALL)
  sent = codec_lib('topk:1/10 | uniform:bits=4 | rans').encode(SMALL, **KEYS)
  for wrong in (sent[:-1], sent + b'\0', b'', sent[:4] + b'\xff' * (len(sent) - 4)):
    with pytest.raises(codec_lib.PayloadError):
      encoder.start('topk:1/10 | uniform:bits=4 | rans', spec, wrong)
