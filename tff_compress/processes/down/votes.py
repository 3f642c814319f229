"""What methods with a majority vote have in common: signs up, and the signs of their sum down."""

from tff_compress.processes.errors import ProcessError

CODEC = 'signsgd'


def check_step(name, step):
  """Raises ProcessError unless a step is a finite number above 0."""
  if not 0 < step < float('inf'):
    raise ProcessError(f'{name}: step must be a finite number above 0, not {step}.')


def downlink(step):
  """The downlink of a server that counts votes: `Changes`."""
  from tff_compress.processes.down.changes import Changes
  return Changes(CODEC, residual=False, step=step)
