"""Tables that repeat facts of the code are what `make docs` makes of it."""

import importlib
import inspect
import pkgutil

import pytest

from docs import tables
from tests import needs

BLOCKS = [block for path in tables.documents() for block in tables.blocks(path)]


def _marked(block):
  """The block with the marker of what making it needs."""
  level = needs.of_function(block.function)
  return pytest.param(block, id=f'{block.path.name}-{block.call}', marks=getattr(pytest.mark, level))


@pytest.mark.parametrize('block', [_marked(block) for block in BLOCKS])
def test_tables_are_those_of_the_code(block):
  assert block.text == block.made(), f'{block.path.name} is not what the code says now: run `make docs`'
  assert tables.MISSING not in block.text, 'a new row has a cell that is written by hand: write it'


def test_every_table_stands_in_a_document():
  used = {block.call.split()[0] for block in BLOCKS}
  for module in pkgutil.iter_modules(tables.__path__):
    if module.name != '__main__':
      found = importlib.import_module(f'{tables.__name__}.{module.name}')
      assert {f'{module.name}.{name}' for name, value in vars(found).items()
              if inspect.isfunction(value) and value.__module__ == found.__name__ and name[0] != '_'} <= used


def test_cells_that_are_written_by_hand_stay_with_their_row():
  table = tables.Table(('name', 'says'), [('`b`', None), ('`new`', None), ('`a|b`', '')])
  before = '| name | says |\n|---|---|\n| `gone` | x |\n| `b` | one \\| two |\n'
  assert table.markdown(before) == (
      '| name | says |\n|---|---|\n| `b` | one \\| two |\n| `new` | TODO |\n| `a\\|b` | |\n')
  assert table.markdown(table.markdown(before)) == table.markdown(before)


def test_a_document_is_written_between_its_marks_alone(tmp_path, monkeypatch):
  monkeypatch.setattr(tables, 'ROOT', tmp_path)
  path = tmp_path / 'it.md'
  path.write_text('before\n<!-- generated: codecs.presets -->\nold\n<!-- end -->\nafter\n')
  assert tables.write(path) and not tables.write(path)
  lines = path.read_text().splitlines()
  assert lines[:2] == ['before', '<!-- generated: codecs.presets -->'] and lines[-2:] == ['<!-- end -->', 'after']
  assert '| `int8` | `uniform \\| pack` | |' in lines


@pytest.mark.parametrize('text, says', [
    ('<!-- generated: codecs.nothing -->\n<!-- end -->\n', "it.md:1: docs/tables has no codecs.nothing"),
    ('<!-- generated: nothing.at_all -->\n<!-- end -->\n', 'it.md:1: docs/tables has no nothing.at_all'),
    ('<!-- generated: codecs.presets -->\n', 'it.md: each line'),
    ('<!-- end -->\n', 'it.md: each line'),
])
def test_marks_that_cannot_be_followed_are_one_sentence(text, says, tmp_path, monkeypatch):
  monkeypatch.setattr(tables, 'ROOT', tmp_path)
  (tmp_path / 'it.md').write_text(text)
  with pytest.raises(tables.TableError) as error:
    tables.write(tmp_path / 'it.md')
  assert says in str(error.value) and '\n' not in str(error.value)
