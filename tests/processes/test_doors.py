"""Whatever takes a codec sends with a preset as it is meant, or refuses it with what to do; a chain of stages is used
as it is.
"""

import collections

import numpy as np
import pytest

import tff_compress
from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress.codec import grammar
from tff_compress.codec import meaning
from tff_compress.codec import presets
from tff_compress.processes import methods
from tff_compress.processes.up import steps
from tff_compress.simulation.config import RunConfig

pytestmark = pytest.mark.xdist_group('tff')

PRESETS = presets.registry()
FOR_FEEDBACK = sorted(name for name, preset in PRESETS.items() if preset.feedback)
FOR_CHANGES = sorted(name for name, preset in PRESETS.items() if preset.changes)
PLAIN = sorted(set(PRESETS) - {*FOR_FEEDBACK, *FOR_CHANGES})
SPEC = codec_lib.Spec.of({'kernel': np.zeros((3, 3, 2, 4), np.float32), 'bias': np.zeros(4, np.float32)})


def weights_type():
  import tensorflow_federated as tff
  return tff.to_type([tff.TensorType(np.float32, [3, 3, 2, 4]), tff.TensorType(np.float32, [4])])


def model_fn():
  import tensorflow as tf
  import tensorflow_federated as tff
  inputs = tf.keras.Input((4,))
  model = tf.keras.Model(inputs, tf.keras.layers.Dense(3)(inputs))
  return tff.learning.models.from_keras_model(
      model, loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int32)))


def chain(name):
  """The codec that a preset stands for, without its name."""
  return str(codec_lib(name))


def remembered(process):
  return set(dir(process.client_state_type)) & {'residual', 'velocity', 'model', 'start'}


def test_presets_of_every_kind_exist():
  assert FOR_FEEDBACK and FOR_CHANGES and PLAIN and set(FOR_CHANGES) != set(FOR_FEEDBACK)


UPLINKS = {'uplink': lambda codec: tff_compress.uplink(codec),
           'unweighted': lambda codec: tff_compress.uplink(codec, weighted=False),
           'sum': lambda codec: tff_compress.aggregators.CodecSumFactory(codec)}


@pytest.mark.parametrize('door', UPLINKS)
@pytest.mark.parametrize('name', sorted(PRESETS))
def test_a_factory_refuses_what_clients_have_to_remember_and_says_how_to_send_it(name, door):
  if name in FOR_FEEDBACK:
    with pytest.raises(codec_lib.CodecError) as error:
      UPLINKS[door](f' {name} ')
    said = str(error.value)
    assert said.startswith(f'{name} is meant for error feedback') and 'build_fed_avg(model_fn, uplink=…)' in said
    assert repr(chain(name)) in said
  else:
    UPLINKS[door](name)
  UPLINKS[door](chain(name))
  UPLINKS[door](codec_lib(name))


@pytest.mark.parametrize('residual', [False, True])
@pytest.mark.parametrize('name', FOR_CHANGES)
def test_a_downlink_of_the_model_refuses_what_is_for_changes(name, residual):
  with pytest.raises(codec_lib.CodecError, match=(
      f'^{name} is meant for what changes.*build_fed_avg.*downlink=…')) as error:
    tff_compress.downlink(name, weights_type(), residual=residual)
  assert repr(chain(name)) in str(error.value)


@pytest.mark.parametrize('codec', ['int8', *map(chain, FOR_CHANGES[-2:])])
def test_a_downlink_of_the_model_takes_the_others_and_every_chain(codec):
  tff_compress.downlink(codec, weights_type())


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_changes_are_as_the_preset_is_meant(name):
  made = processes.Changes.of(name)
  meant = PRESETS[name].changes
  if meant:
    assert made == processes.Changes(name) == processes.Changes(chain(name), since=meant)
  else:
    assert made == codec_lib(name) and processes.Changes(name).since == 'last'
  assert processes.Changes.of(chain(name)) == processes.Changes.of(codec_lib(name)) == codec_lib(name)
  given = processes.Changes(name, residual=False, since='last')
  assert processes.Changes.of(given) is given


UPLINKS_WITH_MEMORY = ['stc', 'stc:p=1/4', 'int8 @5 stc', 'ef-topk @2 ef-signsgd', {0: 'float32', 3: 'sbc'}]
UPLINKS_WITHOUT = ['int8', chain('stc'), codec_lib('stc'), {0: chain('stc'), 3: 'drive'}, f'{chain("stc")} @4 int8']


@pytest.mark.parametrize('uplink', UPLINKS_WITH_MEMORY + UPLINKS_WITHOUT, ids=str)
def test_error_feedback_is_as_the_uplink_is_meant_and_as_it_is_said(uplink):
  meant = processes.ErrorFeedback() if uplink in UPLINKS_WITH_MEMORY else None
  assert processes.ErrorFeedback.of(None, *steps.parts(uplink)) == meant
  assert processes.ErrorFeedback.of(False, *steps.parts(uplink)) is None
  assert processes.ErrorFeedback.of(True, *steps.parts(uplink)) == processes.ErrorFeedback()
  if isinstance(uplink, str):
    assert processes.method(uplink).error_feedback == meant


@pytest.mark.parametrize('arguments,slots', [
    (dict(uplink='int8 @5 sbc', downlink='stc'), {'residual', 'model'}),
    (dict(uplink='stc', error_feedback=False, downlink='rpn'), {'start'}),
    (dict(uplink=chain('stc'), downlink=chain('stc')), set())], ids=['presets', 'said otherwise', 'chains'])
def test_clients_of_a_process_remember_what_its_codecs_are_meant_for(arguments, slots):
  assert remembered(processes.build_fed_avg(model_fn, seed=1, **arguments)) == slots


@pytest.mark.parametrize('arguments,says', [
    (dict(uplink='stc', structured=processes.Structured()), 'leave structured out'),
    (dict(uplink={0: 'int8', 4: 'stc'}, structured=processes.Structured()), 'leave structured out')], ids=str)
def test_a_process_refuses_what_it_cannot_do(arguments, says):
  with pytest.raises(codec_lib.CodecError, match=says):
    processes.build_fed_avg(model_fn, **arguments)


@pytest.mark.parametrize('arguments,says', [(dict(fallback='stc', target='weights'), "target='delta'"),
                                            (dict(downlink='stc'), 'another downlink')], ids=str)
def test_learned_encoders_refuse_what_they_cannot_do(arguments, says):
  with pytest.raises(codec_lib.CodecError, match=says):
    processes.build_autoencoder_fed_avg(model_fn, uplink='concat | autoencoder:2 | float32', **arguments)


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_runs_are_as_the_preset_is_meant(name):
  from tff_compress.simulation import engine
  preset = PRESETS[name]
  config = RunConfig(uplink=name, downlink=name)
  assert (config.feedback is not None, config.changes) == (preset.feedback, preset.changes)
  explicit = RunConfig(uplink=name, downlink=name, error_feedback=False, downlink_changes=False)
  assert not explicit.has_memory
  given = engine.process_arguments(explicit, None)
  assert given['error_feedback'] is False and processes.Changes.of(given['downlink']) == codec_lib(name)


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_federate_is_as_the_preset_is_meant(name):
  from tff_compress.keras.links import Links
  links = Links(name, name)
  assert (links.method.error_feedback is not None) == PRESETS[name].feedback
  assert (isinstance(links.downlink, processes.Changes)
          == bool(PRESETS[name].changes))


@pytest.mark.parametrize('name', sorted(methods.registry()))
def test_a_method_is_named_as_one_wherever_a_codec_is_wanted(name):
  doors = [codec_lib, lambda text: meaning.without_feedback(text, ''), lambda text: meaning.of_whole_models(text, ''),
           tff_compress.uplink, tff_compress.aggregators.CodecSumFactory,
           lambda text: tff_compress.downlink(text, weights_type()),
           lambda text: processes.Changes(text), lambda text: processes.build_fed_avg(model_fn, uplink=text),
           lambda text: processes.build_fed_avg(model_fn, downlink=text),
           lambda text: tff_compress.uplink(f'{text} | float32'), lambda text: processes.method(f'int8 @3 {text}')]
  for door in doors:
    with pytest.raises((codec_lib.CompressionError, processes.ProcessError)) as error:
      door(name)
    assert f'{name} is a method' in str(error.value) and f"processes.method('{name}')" in str(error.value)


def test_names_stand_for_one_thing():
  from tff_compress.codec import stage
  names = collections.Counter([*grammar.method_names(), *PRESETS, *stage.registry()])
  assert set(names.values()) == {1} and set(grammar.method_names()) == set(methods.registry())


@pytest.mark.parametrize('door', UPLINKS)
def test_one_codec_for_all_rounds_is_not_a_schedule(door):
  for schedule in ('int8 @5 drive', {0: 'int8'}, {0: 'stc'}, 'stc @5 int8'):
    with pytest.raises(codec_lib.CodecError, match='for all rounds.*build_fed_avg'):
      UPLINKS[door](schedule)
