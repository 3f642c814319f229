"""Learned encoders on the device: what int8 loses; size, time and memory against the exact file and NumPy.

Two sorts of codecs for updates of the 1,199,882-parameter CNN (Fashion-MNIST, Dirichlet 0.5): for the kernel of
9216 x 128 values alone, whose pieces are columns, and for the whole model in pieces of 1024 values. Autoencoders are
learned from five clients of round 1, which are the examples of the int8 file as well; tried on the five other clients
of that round and on the ten of round 5. The error is ||decoded - x||² / ||x||², behind `uniform:bits=8` and, where it
says so, with latent values as they are. Times are the fastest of calls made side by side, with copies in and out and
without the coder and the frame; memory is how far the process grows.
"""

import numpy as np

from benchmarks.lib import fedavg
from benchmarks.lib import harness
from benchmarks.lib import memory
from benchmarks.lib import progress
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops

KERNEL = 'dense1/kernel'
CODECS = (
    ('linear', KERNEL, 1152, 8, 'columns'), ('dense', KERNEL, 1152, 16, 'columns'),
    ('convolutional', KERNEL, 1152, 18, 'columns'), ('linear', '', 1024, 32, 'rows'), ('dense', '', 1024, 32, 'rows'),
    ('convolutional', '', 1024, 32, 'rows'),
)
"""(architecture, variable or '' for all, length of a piece, latent values of it, order)"""
KEYS = {'seed': 1, 'round': 2, 'client': 3}


def run(quick):
  """Measures; `quick` does so for the kernel with few clients and rounds 1 and 2.

  Returns:
    Rows of the tables 'error' and 'cost'.
  """
  later = 2 if quick else 5
  rounds = fedavg.recorded_updates((1, later), fedavg.Task(clients_per_round=2) if quick else fedavg.Task())
  errors, costs, calls, files = [], [], {}, []
  for kind, variable, length, latent, order in CODECS[:1] if quick else CODECS:
    label = f'{kind}, {latent} of {length} values of {order}, {variable or "all variables"}'
    progress.say(f'learning {label}')
    chosen = {number: [{variable: update[variable]} if variable else update for update in found]
              for number, found in rounds.items()}
    half = len(chosen[1]) // 2
    train, other = chosen[1][:half], chosen[1][half:]
    codec = learned(kind, length, latent, order, train if half > 1 else 2 * train, 3 if quick else 20)
    spec = codec_lib.Spec.of(train[0])
    exact, int8 = exported(codec, spec, np.stack([flat(update) for update in train]))
    runners = {name: Runners(exact, int8, name) for name in ('tf.lite', 'litert')}
    row = {'table': 'error', 'encoder': label}
    for title, found in (('other clients', other), (f'round {later}', chosen[later])):
      row |= measured(codec, spec, found, runners, title)
    errors.append(row)
    costs.append({'table': 'cost', 'encoder': label, 'exact file bytes': len(exact.data),
                  'int8 encoder bytes': len(int8.data), 'int8 network bytes': len(int8.network.data),
                  'operators': sum(int8.network.operators.values()),
                  'edge TPU list': int8.network.check_edgetpu().compatible})
    for name, runner in runners.items():
      calls |= {(label, f'{what}, {name}'): call for what, call in runner.calls(other[0]).items()}
    calls[label, 'NumPy'] = lambda codec=codec, update=other[0]: codec.encode(update, **KEYS)
    files.append((exact, int8, runners['tf.lite'], other[0]))
  seconds = harness.fastest(calls, 5 if quick else 100)
  for cost in costs:
    cost |= {f'{what} ms': round(1e3 * seconds[label, what], 2) for label, what in calls if label == cost['encoder']}
  for name in ('tf.lite', 'litert'):
    progress.say(f'memory of {name}')
    for cost, values in zip(costs, megabytes(files, name)):
      cost |= values
  return errors + costs


def flat(update):
  """float32[d]: an update's values, one variable after the other."""
  return np.concatenate([value.reshape(-1) for value in update.values()])


def learned(kind, length, latent, order, updates, epochs):
  """The codec with an autoencoder that was learned from updates."""
  from tff_compress import autoencoders
  from tff_compress.codec import artefacts
  snapshots = [flat({name: x.reshape(-1, x.shape[-1]).T if order == 'columns' else x for name, x in update.items()})
               for update in updates]
  sizes = tuple(x.size for x in updates[0].values())
  found = autoencoders.fit(autoencoders.ARCHITECTURES[kind](length, latent), np.stack(snapshots), sizes, epochs=epochs)
  stage = f'autoencoder:{latent},length={length},order={order},weights={artefacts.add(found)}'
  return codec_lib(f'concat | {stage} | uniform:bits=8 | rans')


def exported(codec, spec, examples):
  """(`Export` that computes everything, `Export` with a network in int8)"""
  from tflite_export import encoder
  return encoder.export_encoder(codec, spec), encoder.export_encoder(codec, spec, representative_data=examples)


class Runners:
  """Both encoders of a codec in one interpreter."""

  def __init__(self, exact, int8, name):
    from tflite_export import interpreters
    self._exact, self._int8 = exact, int8
    with interpreters.quiet():
      self._files = [interpreters.Interpreter(data, name) for data in (exact.data, int8.data, int8.network.data)]

  def exact(self, update):
    """Outputs of the exact file."""
    return self._files[0].run('encode', **self._exact.update_inputs(update), **self._exact.random_inputs(**KEYS))

  def pieces(self, update):
    return self._files[1].run('pieces', **self._int8.update_inputs(update, 'pieces'))

  def network(self, pieces):
    return self._int8.network.run(self._files[2], pieces)

  def encode(self, update, latents):
    inputs = self._int8.update_inputs(update) | self._int8.random_inputs(**KEYS)
    return self._files[1].run('encode', **inputs, **latents)

  def int8(self, update):
    """Outputs through the network in int8."""
    return self.encode(update, self.network(self.pieces(update)))

  def latents(self, update):
    """float32[k]: what the network's outputs stand for."""
    made, = self._int8.network.outputs.values()
    return made.values(numpy_ops, self.network(self.pieces(update))[made.name])

  def calls(self, update):
    """{what: function without arguments} to be timed."""
    pieces = self.pieces(update)
    return {'exact': lambda: self.exact(update), 'int8, all three': lambda: self.int8(update),
            'int8, network alone': lambda: self.network(pieces)}


def measured(codec, spec, updates, runners, title):
  """{column: mean relative error} through NumPy, the exact file (whose bytes must be the same) and the int8 file."""
  from tflite_export import encoder
  found = {}
  for update in updates:
    payload, x = codec.encode(update, **KEYS), flat(update).astype(np.float64)
    sent = {'exact': payload}
    for name, runner in runners.items():
      if encoder.finish(codec, spec, runner.exact(update)) != payload:
        raise AssertionError(f'{name} computes something else than NumPy for {codec}.')
      sent[f'int8 {name}'] = encoder.finish(codec, spec, runner.int8(update))
    decoded = {name: codec.decode(payload, spec, **KEYS) for name, payload in sent.items()}
    plain = codec_lib(' | '.join([*str(codec).split(' | ')[:2], 'float32']))
    decoded['exact, latent as it is'] = plain.decode(plain.encode(update, **KEYS), spec, **KEYS)
    decoded['int8, latent as it is'] = plain.decode(runners['litert'].latents(update).tobytes(), spec, **KEYS)
    for name, values in decoded.items():
      found.setdefault(f'{title}, {name}', []).append(float(np.sum((flat(values) - x)**2) / np.sum(x**2)))
  return {column: float(np.mean(values)) for column, values in found.items()}


def megabytes(files, name):
  """[{column: megabytes}] that each file takes in an interpreter."""
  pairs = []
  for exact, int8, runner, update in files:
    pieces = runner.pieces(update)
    pairs += [(exact.data, exact.update_inputs(update) | exact.random_inputs(**KEYS)),
              (int8.network.data, {t.name: pieces[t.name].reshape(t.shape) for t in int8.network.inputs.values()})]
  found = memory.of_tflite_files(pairs, name)
  return [{f'exact MB, {name}': a, f'int8 network MB, {name}': b} for a, b in zip(found[::2], found[1::2])]
