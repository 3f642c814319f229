"""What methods with a majority vote have in common: signs up, and the signs of their sum down."""

from tff_compress.processes.errors import ProcessError

CODEC = 'signsgd'


def check_step(name, step):
  """Raises ProcessError unless a step is a finite number above 0."""
  if not 0 < step < float('inf'):
    raise ProcessError(f'{name}: step must be a finite number above 0, not {step}.')


def arguments(step):
  """Those of `build_fed_avg` that make the server count votes."""
  import tensorflow_federated as tff

  from tff_compress.processes.changes import Changes
  return {'downlink': Changes(CODEC, residual=False, step=step),
          'client_weighting': tff.learning.ClientWeighting.UNIFORM}
