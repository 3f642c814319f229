"""Every method by name: its text, its page, its arguments, and two rounds of it in TFF. Methods come in by being
registered."""

import pathlib

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress import wire
from tff_compress.codec import presets
from tff_compress.codec import stage as stage_lib
from tff_compress.processes import methods
from tff_compress.processes.up import steps
from tff_compress.simulation.config import RunConfig
from tff_compress.subspace.session import UPLOAD_OVERHEAD

DOCS = pathlib.Path(__file__).resolve().parents[2] / 'docs'
EXAMPLES = [f'{name}:{text}' if text else name for name,
            kind in sorted(methods.registry().items()) for text in kind.examples]
FEEDBACK = [name for name, kind in sorted(presets.registry().items()) if kind.feedback]
ALL_TAKE_PART = dict(clients=8, clients_per_round=8)
"""Settings of a run that every method can be an uplink of."""
SPEC = codec_lib.Spec.of({'kernel': np.zeros((12, 5), np.float32), 'bias': np.zeros(5, np.float32)})


FINGERPRINTS = {
    'autoencoder-prepass': '38675f7bf3d0c43b2a6f22f413a913f9',
    'cmfl': '6693a937b6052e0c9ad040990a7661c0',
    'dgc': 'b30dd4a15830ac81359c2fc9012db1ce',
    'federated-dropout': '9e868b040b71cf974c252e07ab270263',
    'fedpaq': '8d4671830d8303f77763d16d6f8ef0f6',
    'fetchsgd': 'bd15885c52732cc389f949d25228ac6a',
    'low-rank': '597f753c2cbbf574ea3fb71c53751526',
    'powersgd': '9222b4fa26b309809191b4860ec7f0b2',
    'random-mask': '77be2ae6b55955d06c97c4f52ebb1ef7',
    'signsgd-majority': '4821696376c01a874624f36b54147e32',
    'signum': 'd01993450daa8d7fde15497c7ffedde3',
}
"""Of the processes that the last example of a method makes: what is stored of clients stays readable."""


def test_a_name_stands_for_one_thing():
  kinds = [set(methods.registry()), set(presets.registry()), set(stage_lib.registry())]
  assert len(set.union(*kinds)) == sum(map(len, kinds)) and kinds[0] and FEEDBACK


@pytest.mark.parametrize('text', EXAMPLES)
def test_text_and_method_are_the_same(text):
  method = processes.method(text)
  assert processes.method(str(method)) == method and str(method).startswith(method.name)
  assert processes.method(method) is method
  assert hash(method) is not None
  for _, codec in steps.schedule(method.uplink):
    codec.plan(SPEC)


@pytest.mark.parametrize('kind', [*methods.registry().values(), *presets.registry().values()],
                         ids=lambda kind: kind.name)
def test_every_method_and_preset_is_described(kind):
  assert kind.summary and kind.source
  assert f'`{kind.name}' in (DOCS / kind.page).read_text(encoding='utf-8')


@pytest.mark.parametrize('text', EXAMPLES)
def test_every_method_is_an_uplink_of_a_run(text):
  config = RunConfig(uplink=text, **ALL_TAKE_PART)
  method = config.method
  assert config.downlink == (method.downlink or 'float32')
  assert config.has_memory or method.codec_suffices
  assert method.memory in ('clients', 'server', 'clients, server', 'nothing')


@pytest.mark.parametrize('text', ['int8', 'stc', *EXAMPLES])
def test_a_run_builds_what_the_method_says(text):
  """A run's settings add to what a method says, and never train with something else."""
  from tff_compress.simulation import engine
  model = keras_model((8,))
  said = processes.method(text).arguments(model)
  built = engine.process_arguments(RunConfig(uplink=text, **ALL_TAKE_PART), model)
  assert {name: repr(built[name]) for name in said} == {name: repr(value) for name, value in said.items()}
  assert set(built) - set(said) <= {'downlink', 'client_weighting'}


def test_nothing_of_a_method_is_said_twice():
  assert not [kind.name for kind in methods.registry().values() if 'arguments' in vars(kind)]

  class Twice(methods.Method):
    uplink = 'float32'

    def other_arguments(self, model):
      return {'error_feedback': processes.ErrorFeedback()}

  with pytest.raises(TypeError, match='error_feedback'):
    Twice().arguments()
  for kind in methods.registry().values():
    downlink = kind().arguments(keras_model((8,))).get('downlink')
    own = kind.downlink and not kind.both_ways
    assert (codec_lib(kind.downlink) if own else None) == (downlink and downlink.codec)
    assert kind.downlink == kind.name or not kind.both_ways


def test_a_codec_is_a_method_with_feedback_where_it_is_meant():
  for name in FEEDBACK:
    assert processes.method(name).error_feedback == processes.ErrorFeedback()
  for text in ('float32', 'int8', 'topk:1/100 | float32',
               '*/bias => float32; * => int8'.replace('int8', 'uniform | pack')):
    assert processes.method(text).error_feedback is None and processes.method(text).codec_suffices
  assert processes.method('topk:1/4 | float32 @3 stc').error_feedback is not None


def test_warm_up_of_dgc():
  assert processes.method('dgc').uplink == {
      0: 'topk:1/4 | float32', 1: 'topk:1/16 | float32', 2: 'topk:1/64 | float32', 3: 'topk:1/256 | float32',
      4: 'topk:1/1000 | float32'}
  assert list(processes.method('dgc:p=1/20,warmup=7').uplink) == [0, 7, 14]
  assert processes.method('dgc:p=1/16').uplink == {0: 'topk:1/4 | float32', 1: 'topk:1/16 | float32'}
  assert processes.method('dgc:p=1/20,warmup=0').uplink == {0: 'topk:1/20 | float32'}
  assert processes.method('dgc:clip=3,clients=9').error_feedback.clip == 1
  assert processes.method('dgc').error_feedback.clip is None


def test_schedules_as_text():
  assert steps.schedule('int8 @3 drive @10 float32') == steps.schedule({0: 'int8', 3: 'drive', 10: 'float32'})
  for wrong in ('int8 @0 drive', 'int8 @5 drive @5 drive', 'int8 @5 drive @4 drive', '@5 drive', 'int8 @5',
                'int8 @-1 drive',
                'int8 @5 nonsense', 'int8 @99999999999 drive', 'int8 @4294967296 drive'):
    with pytest.raises(codec_lib.CompressionError):
      steps.schedule(wrong)


@pytest.mark.parametrize('text, says', [
    ('dgcc', 'did you mean dgc'), ('dgc:p=0', 'above 0 and at most 1'), ('dgc:p=1.01', 'above 0 and at most 1'),
    ('dgc:p=-1', 'above 0'),
    ('dgc:p=nan', 'fraction'), ('dgc:p=1/0', 'fraction'), ('dgc:q=1', 'it takes p'), ('dgc:p=1/2,p=1/2', 'twice'),
    ('dgc:momentum=1', 'momentum'), ('dgc:warmup=-1', 'warmup'), ('dgc:clip=-1', 'clip'), ('dgc:clip=inf', 'clip'),
    ('dgc:clients=0', 'clients'), ('dgc @5 dgc', 'alone'), ('stc:p=0', 'above 0'), ('sbc:p=2', 'at most 1'),
    ('ef-topk:p=2', 'at most 1'),
    ('signum:step=0', 'step'), ('signum:step=nan', 'step'), ('signum:momentum=0', 'momentum'),
    ('signsgd-majority:step=inf', 'step'),
    ('cmfl:threshold=2', 'threshold'), ('cmfl:codec=nothing', 'nothing'), ('fetchsgd:rows=2', 'rows'),
    ('fetchsgd:k=0', 'above 0'),
    ('fetchsgd:momentum=1', 'momentum'), ('random-mask:fraction=0', 'above 0'), ('random-mask:normalize=x', 'one of'),
    ('low-rank:share=1', 'below 1'), ('low-rank:normalize=x', 'none or inverse_p'),
    ('powersgd:rank=0', 'from 1 to 1024'),
    ('fedpaq:steps=0', 'steps'), ('fedpaq:levels=0', 'levels'), (7, 'int'), ('', 'empty'),
    ('autoencoder:latent=8', 'the method autoencoder-prepass'), ('autoencoder-prepass:snapshots=1', 'snapshots'),
    ('autoencoder-prepass:latent=1024', 'compress nothing'), ('autoencoder-prepass:fallback=stc', 'feedback'),
    ('autoencoder-prepass:tolerance=nan', 'tolerance'), ('autoencoder-prepass:tolerance=-1', 'tolerance'),
    ('autoencoder-prepass:decoders=0', 'decoders'), ('autoencoder-prepass:decoders=all', 'decoders'),
    ('autoencoder-prepass:least=-1', 'least'), ('autoencoder-prepass:feedback=yes,target=weights', 'feedback'),
    ('autoencoder-prepass:bits=99', 'bits'),
    ('autoencoder-prepass:architecture=convolutional,length=1000', 'multiple'),
    ('federated-dropout:keep=0', 'keep'), ('federated-dropout:codec=stc', 'feedback'),
    pytest.param('x' * 20_000, 'characters', id='long'),
])
def test_bad_texts_are_one_sentence(text, says):
  with pytest.raises(codec_lib.CompressionError) as error:
    processes.method(text)
  assert says in str(error.value) and '\n' not in str(error.value) and len(str(error.value)) < 400


# ---- in TFF
# ------------------------------------------------------------------------------------------------------------


def keras_model(hidden=()):
  import tensorflow as tf
  layers = [tf.keras.layers.Dense(units, 'relu') for units in hidden]
  return tf.keras.Sequential([tf.keras.Input((12,)), *layers, tf.keras.layers.Dense(5, kernel_initializer='zeros')])


def model_fn(hidden=()):
  import tensorflow as tf
  import tensorflow_federated as tff
  return tff.learning.models.from_keras_model(
      keras_model(hidden), loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, 12]), tf.TensorSpec([None], tf.int32)))


def dataset(client):
  import tensorflow as tf
  rng = np.random.default_rng(client)
  y = rng.integers(0, 5, 30).astype(np.int32)
  return tf.data.Dataset.from_tensor_slices(((rng.standard_normal((30, 12)) + y[:, None]).astype(np.float32),
                                             y)).batch(30)


@pytest.mark.xdist_group('tff')
@pytest.mark.parametrize('text', ['stc', *(f'{name}:{kind.examples[-1]}'.rstrip(':')
                                            for name, kind in sorted(methods.registry().items()))])
def test_a_method_trains_and_remembers_what_it_says(text, tff_runtime):
  """Bytes are those of the frames; the loss falls; and where something is remembered is what `memory` says."""
  del tff_runtime
  from tff_compress.aggregators import communication
  method = processes.method(text)
  # Only federated dropout needs a hidden layer.
  hidden = (8,) if method.name == 'federated-dropout' else ()
  arguments = method.arguments(keras_model(hidden))
  process = method.build(lambda: model_fn(hidden), seed=3, spec=None if hidden else SPEC, **arguments)
  assert process.fingerprint.hex() == FINGERPRINTS.get(text.partition(':')[0], process.fingerprint.hex())
  runner = processes.Runner(process)
  if method.prepass:
    runner.prepass([0, 1], [dataset(0), dataset(1)])
    for memory in (runner.client_state(0), runner.client_state(1)):
      assert memory['learned'] == memory['client'] + 1
  losses = []
  for _ in range(3):
    metrics = runner.next([0, 1], [dataset(0), dataset(1)])
    losses.append(float(metrics['client_work']['train']['loss']))
  assert losses[2] < losses[0]
  for figure in method.figures:
    assert not figure.place or figure.read(metrics) >= 0
  measured = communication(metrics)
  size = steps.schedule(method.uplink)[-1][1].plan(SPEC).payload_size
  sent = 2 - int(metrics['aggregator'].get('uplink_skipped', 0))
  if isinstance(arguments.get('server'), processes.PowerSgd):
    size = 4 * (12 + 5)  # The coordinates of the kernel's 12 rows on one column, in even rounds, and the bias.
  if method.prepass:
    assert metrics['aggregator']['uplink_fallbacks'] == 0
    size += 1 + 4  # Which codec it was, and the checksum of the decoder.
  if method.both_ways:
    # The whole small model, at four bits where the bits are not given, and no frames.
    kept = int(metrics['aggregator']['kept'])
    assert measured['uplink_bytes'] == 2 * (UPLOAD_OVERHEAD + kept * (getattr(method, 'up', 0) or 4) // 8)
  elif size is not None and sent == 2 and not hidden and not isinstance(method.uplink, dict):
    assert measured['uplink_bytes'] == 2 * (wire.FRAME_OVERHEAD + size)
  assert 0 < measured['uplink_bytes'] <= 2 * (wire.FRAME_OVERHEAD + 5 * SPEC.uncompressed_bytes)
  remembers = {'clients' if set(runner.client_state(0)) - {'client', 'seen', 'version', 'start'} else '',
               'server' if set(runner.state.aggregator) - {'round'} else ''} - {''}
  expected = 'clients' if not method.name else method.memory
  assert remembers == set(expected.split(', ')) - {'nothing'}
