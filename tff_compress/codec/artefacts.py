"""What codecs refer to by digest, such as trained networks: both sides must have it before they can use the codec.

    digest = artefacts.add(autoencoder)                        # in this process
    artefacts.save(autoencoder, 'model.autoencoder')           # for others
    tff_compress.codec(f'concat | autoencoder:32,length=1024,weights={digest} | uniform:bits=8 | rans')

The digest is that of the content, so a codec text says exactly which network it means, whoever made it.
"""

import os
import re

from tff_compress.codec import files
from tff_compress.codec import network
from tff_compress.codec.errors import ArtefactError

_known: dict[str, network.Autoencoder] = {}

DIGEST = re.compile('[0-9a-f]{32}')


def add(autoencoder: network.Autoencoder) -> str:
  """Makes a `network.Autoencoder` known to the codecs of this process; returns its digest."""
  _known[autoencoder.digest] = autoencoder
  return autoencoder.digest


def find(digest: str) -> network.Autoencoder:
  """The `network.Autoencoder` of a digest.

  Raises:
    ArtefactError: it is not known here.
  """
  if digest not in _known:
    raise ArtefactError(f'the weights {digest} are not here: load their file first, with '
                        'tff_compress.codec.artefacts.load, or --autoencoder FILE on the command line.')
  return _known[digest]


def load(path: str) -> str:
  """Reads a file and makes it known; returns its digest.

  Raises:
    ArtefactError: it cannot be read, or holds something else.
  """
  try:
    if os.path.getsize(path) > network.MAX_BYTES or not os.path.isfile(path):
      raise ArtefactError(f'{path} is not the file of an autoencoder: it is no file, or too large.')
    with open(path, 'rb') as file:
      return add(network.unpack(file.read(network.MAX_BYTES + 1)))
  except OSError as error:
    raise ArtefactError(f'{path} cannot be read: {files.reason(error)}.') from None


def save(autoencoder: network.Autoencoder, path: str) -> None:
  """Writes a `network.Autoencoder` into a file, whole or not at all. Raises ArtefactError if it cannot be written."""
  files.write(path, autoencoder.packed, ArtefactError)
