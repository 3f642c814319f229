"""Files are written whole or not at all, and errors name the file and the reason; paths are any bytes."""

import errno
import io
import os
import resource
import stat

import numpy as np
import pytest

from tff_compress.codec import files
from tff_compress.codec.errors import ArtefactError
from tff_compress.codec.errors import CompressionError

NAMES = ['выход', 'a b', '😀', os.fsdecode(b'bad\xff\xfe'), 'x' * 255]


@pytest.mark.parametrize('name', NAMES)
def test_a_file_is_replaced_as_a_whole(tmp_path, name):
  path = str(tmp_path / name)
  for data in (b'first', b'', b'second'):
    files.write(path, data)
    with open(path, 'rb') as file:
      assert file.read() == data
  assert os.listdir(tmp_path) == [name]


def test_the_umask_decides_who_may_read_a_file(tmp_path):
  before = os.umask(0o027)
  try:
    files.write(str(tmp_path / 'a'), b'')
  finally:
    os.umask(before)
  assert stat.S_IMODE(os.stat(tmp_path / 'a').st_mode) == 0o640


@pytest.mark.parametrize('call', ['open', 'fsync', 'replace'])
@pytest.mark.parametrize('code, says', [(errno.EROFS, 'Read-only file system'),
                                        (errno.ENOSPC, 'No space left on device')])
def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch, call, code, says):
  path = str(tmp_path / 'a')
  files.write(path, b'before')

  def refuse(*unused, **unused_too):
    raise OSError(code, os.strerror(code))

  with monkeypatch.context() as patched, pytest.raises(ArtefactError) as caught:
    patched.setattr(files.os, call, refuse)
    files.write(path, b'after', ArtefactError)
  assert str(caught.value) == f'{path} cannot be written: {says}.'
  assert os.listdir(tmp_path) == ['a'] and (tmp_path / 'a').read_bytes() == b'before'


def test_a_disk_that_is_full_in_the_middle_of_a_file_leaves_what_was_there(tmp_path):
  """With the limit of a process on the size of files, which holds for root too."""
  path = str(tmp_path / 'a')
  files.write(path, b'before')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
  try:
    with pytest.raises(ArtefactError, match=f'^{path} cannot be written: File too large.$'):
      files.write(path, bytes(1000), ArtefactError)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert os.listdir(tmp_path) == ['a'] and (tmp_path / 'a').read_bytes() == b'before'


def test_a_file_that_takes_a_block_to_write_is_there_at_the_end_of_it(tmp_path):
  path = str(tmp_path / 'a')
  with files.replacing(path) as file:
    file.write(b'first')
    assert not os.path.exists(path)
  with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
    file.write(b'second')
    raise KeyboardInterrupt
  assert os.listdir(tmp_path) == ['a'] and (tmp_path / 'a').read_bytes() == b'first'


def contents(path):
  return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_folder_is_replaced_as_a_whole(tmp_path):
  path = tmp_path / 'plan'
  for files_of_it in ({'a': b'1', 'b': b'2'}, {}, {'b': b'3'}):
    files.write_folder(str(path), files_of_it)
    assert contents(path) == files_of_it
  assert os.listdir(tmp_path) == ['plan']


@pytest.mark.parametrize('call, fails, before', [
    *((call, fails, before) for call, fails in (('mkdir', 1), ('open', 1), ('open', 2), ('fsync', 2), ('rename', 1))
      for before in (None, {'a': b'before'})),
    ('rename', 2, {'a': b'before'}),
])
def test_a_folder_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch, call, fails, before):
  path = tmp_path / 'plan'
  if before is not None:
    files.write_folder(str(path), before)
  calls, real = [], getattr(os, call)

  def refuse(*arguments, **more):
    calls.append(arguments)
    if len(calls) == fails:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real(*arguments, **more)

  with monkeypatch.context() as patched, pytest.raises(ArtefactError) as caught:
    patched.setattr(files.os, call, refuse)
    files.write_folder(str(path), {'a': b'after', 'b': b'new'}, ArtefactError)
  assert str(caught.value) == f'{path} cannot be written: No space left on device.'
  assert os.listdir(tmp_path) == ([] if before is None else ['plan'])
  assert before is None or contents(path) == before


@pytest.mark.parametrize('problem, says', [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'x'), 'No space left on device'),
    (RuntimeError('/a; b/c; No space left on device [Op:SaveV2]'), 'No space left on device'),
    (RuntimeError('/a/b; Read-only file system'), 'Read-only file system'),
    ('/a/b; File too large\n\t [[{{node WriteFile}}]] while evaluating local [_atm63]', 'File too large'),
    ('{{function_node X}} /a/b; File too large\n\tFailed to flush 3 events to /a/b\n\tCould not flush',
     'File too large'),
    (RuntimeError('all went\nwrong.'), 'all went wrong'), (RuntimeError(), 'RuntimeError'),
])
def test_the_reason_is_found_in_errors_of_python_and_tensorflow(problem, says):
  assert files.reason(problem) == says


@pytest.mark.parametrize('name', [*NAMES, os.fsdecode(b'bad\xff.h5'), '[a]*?.keras', 'back\\slash'])
def test_every_path_has_one_that_libraries_take(tmp_path, name):
  path = str(tmp_path / name)
  files.write(path, b'here')
  with files.readable(path) as alias:
    assert os.path.splitext(alias)[1] == os.path.splitext(path)[1]
    assert not set('*?[\\') & set(alias)
    with open(alias.encode('utf-8'), 'rb') as file:
      assert file.read() == b'here'
  assert os.path.exists(path) and (alias == path or not os.path.lexists(alias))


def test_packed_arrays_are_read_as_they_were_and_damaged_ones_are_one_sentence():
  arrays = {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': np.asarray(3, np.int64)}
  data = files.packed(arrays)
  assert data == files.packed(arrays)
  read = files.unpacked(data, CompressionError, 'it')
  assert list(read) == ['a', 'b'] and all(np.array_equal(read[name], arrays[name]) for name in arrays)
  alone, pickled = io.BytesIO(), io.BytesIO()
  np.save(alone, arrays['a'])
  np.savez(pickled, a=np.asarray([{}], object))
  damaged = [data[:place] for place in range(0, len(data), 7)]
  damaged += [data[:place] + bytes([data[place] ^ 255]) + data[place + 1:] for place in range(0, len(data), 3)]
  for wrong in (alone.getvalue(), pickled.getvalue(), b'PK nonsense', *damaged):
    try:
      files.unpacked(wrong, CompressionError, 'it')  # Not every byte of a zip file means something.
    except CompressionError as error:
      assert str(error) == 'it cannot be read: it was damaged.'
