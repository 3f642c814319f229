"""A task without a plan's files, for tests that need no TensorFlow: two variables, and what the manifest must say."""

import hashlib
import json

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import random
from tff_compress.serving import aggregator
from tff_compress.serving.settings import Settings
from tff_compress.timeline.whole import WholeRules

SPEC = codec_lib.Spec((codec_lib.TensorSpec('w', (6, 10), 'float32'), codec_lib.TensorSpec('b', (10,), 'float32')))
UPLINK, DOWNLINK = 'hadamard | uniform:bits=2 | pack', 'int8'
SEED = 77
FILE = b'what trains' * 100


def update(seed, scale=1.0):
  rng = np.random.default_rng(seed)
  return {t.name: (scale * rng.standard_normal(t.shape)).astype(np.float32) for t in SPEC.tensors}


def frame(round=1, client=0, seed=SEED, codec=UPLINK, scale=1.0):
  return wire.pack(codec, update(client, scale), seed=seed, round=round, client=client)


def begin(store, **settings):
  """A task in a store, with goal 2."""
  codec = codec_lib(DOWNLINK)
  manifest = {
      'format': 'tff-compress plan', 'version': 1, 'min_runtime_version': '2.11.0',
      'variables': [{'name': t.name, 'shape': list(t.shape), 'dtype': t.dtype} for t in SPEC.tensors],
      'uplink': {'codec': UPLINK}, 'downlink': {'codec': DOWNLINK, 'changes': None},
      'files': {'training': {'sha256': store.public.put(FILE), 'bytes': len(FILE)}}}
  weights = update(99)
  first = wire.pack(codec, weights, seed=SEED, round=0, client=random.SHARED_CLIENT)
  timeline = WholeRules(codec.fingerprint(SPEC)).followed(None, first)
  exact = wire.pack('float32', weights, seed=0, round=0, client=random.SHARED_CLIENT)
  task = store.begin_task(
      store.public.put(json.dumps(manifest).encode()), Settings(**{'goal': 2, 'rounds': 2, **settings}),
      seed=f'{SEED:016x}', model=store.blobs.put(exact), optimizer=store.blobs.put(b''),
      timeline=store.blobs.put(timeline.to_bytes()))
  return aggregator.Task(store, task)


def sha256(data):
  return hashlib.sha256(data).hexdigest()
