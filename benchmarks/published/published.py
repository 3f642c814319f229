"""The counts of Konecny et al. 2016 (sketched updates), measured on real payloads.

Section 4: "256x" per compressed layer at 6.25 % of the rotated values and 2 bits; All-CNN-C on CIFAR with its inner
seven kernels compressed; the tied-embedding LSTM. The papers' counts leave out ranges, seeds and framing; here each is
counted.
"""

import fnmatch

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress import wire

INNER = 'conv[2-8]/kernel'
"""The inner seven kernels of All-CNN-C, as the simulation's model names them."""
POINT = 'hadamard | subsample:1/16 | uniform:bits=2{} | pack'
"""6.25 % of the values at 2 bits each: 0.125 bit per value, 256 times less than 32."""


def run(quick):
  del quick
  return layers() + whole_model() + counts()


def update_of(model):
  """An update (of random values: sizes do not depend on them) for the variables of a model of the simulation."""
  from tff_compress.simulation import models
  spec = codec_lib.Spec.of(models.build(model))
  rng = np.random.default_rng(0)
  return {tensor.name: rng.standard_normal(tensor.shape).astype(np.float32) for tensor in spec.tensors}


def inner_kernels(update):
  return {name: value for name, value in update.items() if fnmatch.fnmatchcase(name, INNER)}


def layers():
  """Per inner kernel: values on the wire per value, and the ratio to float32 with less and less left out."""
  rows = []
  for name, value in inner_kernels(update_of('all_cnn_c')).items():
    pipeline = codec_lib(POINT.format('')).rules[0].pipeline
    rotated, kept = pipeline.signals(value.size)[1:3]
    payload = {text: len(codec_lib(POINT.format(text)).encode({name: value}, seed=0, round=1, client=0))
               for text in ('', ',range=tensor')}
    frame = len(wire.pack(POINT.format(''), {name: value}, seed=0, round=1, client=0))
    rows.append({
        'table': 'per layer, 6.25 % at 2 bits: published 256', 'layer': name, 'values': value.size,
        'N / d': rotated.size / value.size, 'symbol bytes': kept.size * 2 // 8,
        'ratio, symbols only': 4 * value.size / (kept.size * 2 / 8),
        'with a range per tensor': 4 * value.size / payload[',range=tensor'],
        'with a range per 1024': 4 * value.size / payload[''], 'whole frame': 4 * value.size / frame,
    })
  return rows


def whole_model():
  """All-CNN-C with the inner kernels compressed and the rest as float32, in one frame."""
  update = update_of('all_cnn_c')
  values = codec_lib.Spec.of(update).parameters
  rows = []
  for name, text in (('range per tensor', ',range=tensor'), ('range per 1024', '')):
    frame = len(wire.pack(f'{INNER} => {POINT.format(text)}; * => float32', update, seed=0, round=1, client=0))
    rows.append({'table': 'All-CNN-C, inner seven kernels compressed: published 256, by arithmetic 123.4',
                 'ranges': name, 'values': values, 'frame bytes': frame, 'ratio': 4 * values / frame,
                 'updates in half of the raw training images': int(76.8e6 / frame)})
  return rows


def counts():
  """Parameter counts."""
  rows = []
  for model, published in (('all_cnn_c', 1_369_738), ('tied_lstm', 1_347_776), ('mnist_cnn', 1_199_882)):
    update = update_of(model)
    values = codec_lib.Spec.of(update).parameters
    biases = sum(value.size for value in update.values() if value.ndim == 1)
    rows.append({'table': 'parameters', 'model': model, 'expected': published, 'counted': values, 'biases': biases,
                 'biases, %': 100 * biases / values})
  return rows
