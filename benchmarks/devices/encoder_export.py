"""Codecs as .tflite files: time, size and memory of encoders and decoders in both interpreters, on one thread.

The update is that of the 1,199,882-parameter CNN with normally distributed values. A time is the fastest of many calls
that are made side by side, with the copies of inputs and outputs, and without the coder and the frame, which an app
adds. Every payload is compared with NumPy's. Memory is how far the process grows from before the file is loaded to
behind the first call.
"""

import time

import numpy as np

from benchmarks.lib import fedavg
from benchmarks.lib import harness
from benchmarks.lib import memory
from benchmarks.lib import progress
from tff_compress import codec as codec_lib

CODECS = ('hadamard | uniform:bits=2 | pack', 'concat | hadamard | uniform:bits=2 | pack', 'shared-mask', 'drive',
          'drive:bits=4', 'rotated-ternary', 'sketch', 'int8', 'float16', 'topk:1/100 | uniform:bits=4 | pack')
KEYS = {'seed': 1, 'round': 2, 'client': 3}


def run(quick):
  """Measures.

  Returns:
    Rows of the tables 'encoders' and 'decoders', and of 'many variables': sizes for MobileNetV2 (width 0.35).
  """
  from tflite_export import encoder
  rng = np.random.default_rng(0)
  update = {name: (0.01 * rng.standard_normal(shape)).astype(np.float32) for name, shape in fedavg.SHAPES.items()}
  spec = codec_lib.Spec.of(update)
  exports = {}
  for codec in CODECS[:2] if quick else CODECS:
    for words in encoder.WORDS:
      progress.say(f'exporting {codec}, words {words}')
      exports[codec, words, 'encode'] = encoder.export_encoder(codec, spec, words=words)
    exports[codec, 'inside', 'decode'] = encoder.export_decoder(codec, spec)
  first = CODECS[0]
  exports[first, 'inside, error feedback', 'encode'] = encoder.export_encoder(first, spec, error_feedback=True)

  calls, files, megabytes = {}, [], {}
  for key, export in exports.items():
    inputs = _inputs(export, update)
    files.append((export.data, inputs))
    for name, call in _calls(export, inputs, update).items():
      calls[(*key, name)] = call
  for name in ('tf.lite', 'litert'):
    progress.say(f'memory of {name}')
    megabytes[name] = memory.of_tflite_files(files, name)
  for codec in dict.fromkeys(codec for codec, *_ in exports):
    calls[codec, 'NumPy'] = lambda codec=codec_lib(codec): codec.encode(update, **KEYS)
  seconds = harness.fastest(calls, 5 if quick else 120)

  rows = []
  for number, (key, export) in enumerate(exports.items()):
    codec, words, kind = key
    rows.append({
        'table': f'{kind}rs', 'codec': codec, 'words': words, 'file bytes': len(export.data),
        **{f'{name} ms': round(1e3 * seconds[(*key, name)], 2) for name in megabytes},
        **({'NumPy ms, with coder': round(1e3 * seconds[codec, 'NumPy'], 2)} if kind == 'encode' else {}),
        **{f'{name} MB': megabytes[name][number] for name in megabytes},
    })
  rows.sort(key=lambda row: row['table'], reverse=True)
  return rows if quick else rows + _many_variables()


def _many_variables():
  import tensorflow as tf

  from tflite_export import encoder
  model = tf.keras.applications.MobileNetV2(alpha=0.35, weights=None, classes=10, input_shape=(96, 96, 3))
  rows = []
  for codec in ('drive', 'concat | hadamard | uniform:bits=2 | pack',
                'size<2000 => float32; * => hadamard | uniform:bits=2 | pack'):
    start = time.perf_counter()
    export = encoder.export_encoder(codec, model)
    rows.append({'table': 'many variables', 'codec': codec, 'variables': len(export.layout.variables),
                 'segments': len(export.layout.parts), 'operators': sum(export.operators.values()),
                 'file bytes': len(export.data), 'export s': round(time.perf_counter() - start, 1)})
  return rows


def _inputs(export, update):
  """{name: array} of one call."""
  from tflite_export import encoder
  codec, spec = export.layout.codec, export.layout.spec
  if export.signature == 'decode':
    arrays, _ = encoder.start(codec, spec, codec.encode(update, **KEYS))
  else:
    arrays = export.update_inputs(update)
    if export.error_feedback:
      arrays |= {array.name: np.zeros(array.size, np.float32) for array in export.layout.residuals.values()}
  return {**arrays, **export.random_inputs(**KEYS)}


def _calls(export, inputs, update):
  """{interpreter: function of one call}, after a look at what it gives."""
  from tflite_export import encoder
  from tflite_export import interpreters
  calls = {}
  for name in interpreters.NAMES:
    with interpreters.quiet():
      interpreter = interpreters.Interpreter(export.data, name)
      outputs = interpreter.run(export.signature, **inputs)
    codec, spec = export.layout.codec, export.layout.spec
    if export.signature == 'encode':
      same = encoder.finish(codec, spec, outputs) == codec.encode(update, **KEYS)
    else:
      decoded = codec.decode(codec.encode(update, **KEYS), spec, **KEYS)
      same = all(np.allclose(outputs[array.name], decoded[spec.tensors[i].name].reshape(-1), rtol=1e-5, atol=1e-7)
                 for i, array in export.layout.variables.items())
    if not same:
      raise AssertionError(f'{name} computes something else than NumPy for {codec}.')
    calls[name] = lambda interpreter=interpreter: interpreter.run(export.signature, **inputs)
  return calls
