"""What methods with a majority vote have in common: signs up, and the signs of their sum down."""

from tff_compress.codec import checks
from tff_compress.processes.errors import ProcessError

CODEC = 'signsgd'


def check_step(name, step):
  """Raises ProcessError unless a step is a finite number above 0."""
  checks.number(f'{name}: step', step, ProcessError, above=0)


def downlink(step):
  """The downlink of a server that counts votes: `Changes`."""
  from tff_compress.processes.down.changes import Changes
  return Changes(CODEC, residual=False, step=step)
