"""What cannot be trained, and training that failed: errors of one sentence, of TensorFlow's too."""

from collections.abc import Iterator
import contextlib
import re

from tff_compress.codec.errors import CompressionError


class FederateError(CompressionError):
  """A model, data or arguments that cannot be trained with, or training that diverged; one sentence."""


@contextlib.contextmanager
def one_sentence(text: str) -> Iterator[None]:
  """Turns what TensorFlow raises inside the block into a FederateError with its first meaningful line."""
  try:
    yield
  except FederateError:
    raise
  except Exception as error:  # Keras raises nearly every type here.
    raise FederateError(text.format(first_line(error))) from error


def first_line(error: BaseException) -> str:
  """The line of an error's text that says what is wrong, shortened; of an error that a TFF worker reports, too."""
  details = getattr(error, 'details', None)
  text = details() if callable(details) else str(error)
  text = re.sub(r" for '\{\{node [^}]*\}\} = (\w+)[^']*'", r' for \1', text or '')
  text = re.sub(r'\{\{[^}]*\}\} ?', '', text).replace('Failed to run computation:', '')
  text = re.sub(r'assertion failed: \[(.*?)\]', r'\1', text).replace("\\'", "'")
  lines = [' '.join(line.split()) for line in text.splitlines()]
  lines = [line for line in lines if line and not line.startswith(('File "', 'Call arguments', '•', 'Traceback'))]
  # Where code that was traced fails, the error itself comes behind its traceback.
  named = [line for line in lines if re.match(r'[A-Za-z]+Error: ', line)]
  line = re.sub(r'^[A-Za-z]+Error: ', '', (named or lines or [type(error).__name__])[0])
  return (line if len(line) <= 200 else line[:199] + '…').rstrip('.')
