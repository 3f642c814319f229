"""A task without a plan's files, for tests that need no TensorFlow: two variables, and what the manifest must say."""

import contextlib
import hashlib
import json
import threading

import numpy as np
import uvicorn

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import random
from tff_compress.serving import aggregator
from tff_compress.serving import server as server_lib
from tff_compress.serving.fold import Fold
from tff_compress.serving.settings import Settings
from tff_compress.timeline.timeline import Timeline
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


def advance(task):
  """What an aggregator does, with plain averaging: commits the round where it is closed."""
  store = task.store
  number = store.task(task.task)['round']
  if store.close_due(task.task, number) != 'closed':
    return
  fold, row = Fold(task.rules, number), store.round(task.task, number)
  for _, client, digest, weight in store.accepted(task.task, number):
    fold.add(store.blobs.get(digest), client, weight)
  weights, mean = wire.unpack('float32', store.blobs.get(row['model']), SPEC, seed=0)[0], fold.mean()
  weights = {name: weights[name] + mean[name] for name in weights}
  timeline = task.history.followed(Timeline.from_bytes(store.blobs.get(row['timeline'])),
                                   aggregator.pack(task.downlink, weights, SPEC, SEED, number))
  store.commit_round(
      task.task, number, result=store.blobs.put(aggregator.pack(codec_lib('float32'), weights, SPEC, 0, number)),
      optimizer=row['optimizer'], timeline=store.blobs.put(timeline.to_bytes()), figures={})


@contextlib.contextmanager
def serving(app):
  """Runs an application in a thread; gives its port."""
  sock = server_lib.listening('127.0.0.1', 0)
  running = uvicorn.Server(uvicorn.Config(app, log_level='error', timeout_graceful_shutdown=1))
  thread = threading.Thread(target=running.run, kwargs={'sockets': [sock]})
  thread.start()
  try:
    yield sock.getsockname()[1]
  finally:
    running.should_exit = True
    thread.join()
    sock.close()
