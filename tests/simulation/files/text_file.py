"""A text file, for tests."""


def write(folder):
  """A small data set for the contract of data sets; what --data-dir is given."""
  path = folder / 'verses.txt'
  path.write_text(''.join(f'Zeile {i}: süß und {i * i} — weiter.\n' for i in range(60)), encoding='utf-8')
  return path
