"""What a plan is, for whoever reads one: the form of its manifest, and its files. manifest.py makes and checks plans.

Importing this loads no TensorFlow, so that a device can.
"""

import dataclasses
import functools
import json
import pathlib

from tff_compress import codec as codec_lib
from tff_compress.codec.spec import Spec
from tflite_export.errors import ExportError
from tflite_export.errors import FileError

FORMAT = 'tff-compress plan'
VERSION = 1
MANIFEST = 'plan.json'
LARGEST = 16 << 20
"""Bytes of the largest manifest that is read."""

ROLES = ('training', 'encoder', 'decoder', 'inference')


@dataclasses.dataclass(frozen=True)
class Plan:
  """A plan that was made or read.

  Attributes:
    path: pathlib.Path of its folder.
    manifest: what plan.json holds, a dict.
  """
  path: pathlib.Path
  manifest: dict

  @property
  def spec(self) -> Spec:
    """`Spec` of the variables that travel."""
    return spec_of(self.manifest)

  def file(self, role: str) -> pathlib.Path:
    """pathlib.Path of the file of a role; ExportError if the plan has none."""
    if role not in self.manifest['files']:
      raise ExportError(f'the plan {self.path} has no {role} file; it has {", ".join(self.manifest["files"])}.')
    return self.path / self.manifest['files'][role]['file']


def spec_of(manifest: dict) -> Spec:
  """`Spec` of the variables of a manifest."""
  return codec_lib.Spec(tuple(codec_lib.TensorSpec(v['name'], tuple(v['shape']), v['dtype'])
                              for v in manifest['variables']))


def read_form(text: bytes, name: object) -> dict:
  """The manifest in a text: of the right format and version, and not yet checked for more (`check_form`).

  Args:
    text: bytes of plan.json.
    name: what errors call it.

  Raises:
    FileError: it is no manifest of a plan, or of a later version.
  """
  try:
    manifest = json.loads(text, parse_constant=_no_number)
    if manifest['format'] != FORMAT:
      raise ValueError
    version = manifest['version']
  except (ValueError, KeyError, TypeError, RecursionError):
    raise FileError(f'{name} is no manifest of a plan.') from None
  if version != VERSION or isinstance(version, bool):
    raise FileError(f'{name} has version {version!r:.20}; this release reads version {VERSION}.')
  return manifest


@functools.cache
def schema() -> dict:
  """The JSON Schema of plan.json, a dict."""
  return json.loads(pathlib.Path(__file__).with_name('plan.schema.json').read_text(encoding='utf-8'))


def check_form(manifest):
  """Raises FileError unless a manifest fits the schema; it names the first thing that does not."""
  import jsonschema
  error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(manifest))
  if error is not None:
    where = '/'.join(map(str, error.absolute_path)) or 'the manifest'
    reason = ' '.join(error.message.split())
    raise FileError(f'{MANIFEST} does not have the form of a plan: at {where[:100]}, {reason[:200]}.')


def _no_number(text):
  """For NaN and Infinity, which JSON does not have."""
  raise ValueError(text)
