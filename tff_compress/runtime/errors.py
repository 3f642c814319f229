"""What can go wrong between this process and a TFF worker."""


class TffRuntimeError(RuntimeError):
  """Base of the errors below. What a computation itself does wrong is raised as TFF raises it."""


class RuntimeStartError(TffRuntimeError):
  """A worker process could not be started."""


class RuntimeConnectionError(TffRuntimeError):
  """A worker cannot be reached, or was lost during a call."""


class RuntimeDeadlineError(TffRuntimeError):
  """A call took longer than its deadline."""


class NotMergeableError(TffRuntimeError):
  """A computation cannot be split over several workers."""
