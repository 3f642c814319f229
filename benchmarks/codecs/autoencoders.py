"""How well autoencoders that were learned from a few clients' updates encode those of other clients and rounds, against
codecs.

The kernel of 9216 x 128 values in updates of the 1,199,882-parameter CNN (Fashion-MNIST, Dirichlet 0.5). Learned from
five clients of round 1; tried on the five other clients of that round and on the ten of round 5. Bits are those of the
payloads, latent values with 8 bits; what both sides need once is beside them. The error is relative to the update, so
sending nothing has 1.
"""

import numpy as np

from benchmarks.lib import fedavg
from benchmarks.lib import progress
from tff_compress import codec as codec_lib

VARIABLE = 'dense1/kernel'
LEARNED = (
    ('linear', 128, 8, 'rows'), ('linear', 1024, 32, 'rows'), ('dense', 1024, 32, 'rows'),
    ('linear', 1152, 8, 'columns'), ('dense', 1152, 16, 'columns'),
    ('linear', 9216, 4, 'columns'), ('linear', 9216, 8, 'columns'), ('linear', 9216, 32, 'columns'),
)
"""(kind, length, latent, order)"""
OTHERS = ('autoencoder:8,length=1152,order=columns,weights=cosine | uniform:bits=8 | rans', 'stc:p=1/400', 'stc:p=1/50',
          'ef-topk',
          'subsample:0.05,key=client | hadamard:rotations=2,key=client | eden:bits=1 | pack', 'rotated-ternary',
          'drive')


def run(quick):
  """Measures; `quick` does so for two small networks and rounds 1 and 2.

  Returns:
    List of rows: codec, bits (per value), decoder_bytes and both_bytes (sent once: decoder alone, and encoder too), and
    the mean NMSE on other clients and in a later round.
  """
  from tff_compress import autoencoders
  from tff_compress.codec import artefacts
  later = 2 if quick else 5
  rounds = fedavg.recorded_updates((1, later), fedavg.Task(clients_per_round=2) if quick else fedavg.Task())
  updates = {number: [update[VARIABLE] for update in found] for number, found in rounds.items()}
  half = len(updates[1]) // 2
  train, other = updates[1][:half], updates[1][half:]
  rows = []
  for kind, length, latent, order in progress.bar(LEARNED[:1] + LEARNED[3:4] if quick else LEARNED, 'autoencoders'):
    snapshots = np.stack([(x.T if order == 'columns' else x).reshape(-1) for x in train
                          for _ in range(2 if half < 2 else 1)])
    learned = autoencoders.fit(autoencoders.ARCHITECTURES[kind](length, latent), snapshots, (snapshots.shape[1],),
                               epochs=5 if quick else 30)
    stage = codec_lib.parse(
        f'autoencoder:{latent},length={length},order={order},weights={artefacts.add(learned)} | uniform:bits=8 | rans')
    rows.append({'codec': f'{kind}, {latent} of {length} values of {order}', **measured(stage, other, updates[later]),
                 'decoder_bytes': learned.decoder_bytes, 'both_bytes': len(learned.packed)})
  for text in OTHERS:
    rows.append({'codec': text, **measured(codec_lib(text), other, updates[later]), 'decoder_bytes': 0,
                 'both_bytes': 0})
  return rows


def measured(codec, other, later):
  """{bits, nmse on other clients, nmse later}."""
  errors, sent = {}, []
  for name, found in (('nmse_other_clients', other), ('nmse_later', later)):
    parts = []
    for client, x in enumerate(found):
      payload = codec.encode({VARIABLE: x}, seed=0, round=0, client=client)
      decoded = codec.decode(payload, {VARIABLE: x}, seed=0, round=0, client=client)[VARIABLE]
      parts.append(float(np.sum((decoded - x.astype(np.float64))**2) / np.sum(x.astype(np.float64)**2)))
      sent.append(len(payload))
    errors[name] = float(np.mean(parts))
  return {'bits': 8 * float(np.mean(sent)) / other[0].size, **errors}
