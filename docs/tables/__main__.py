"""`make docs`: makes the tables of all documents anew."""

import sys

from docs import tables


def main() -> int:
  try:
    for path in tables.documents():
      if tables.write(path):
        print(f'written: {path.relative_to(tables.ROOT)}')
  except tables.TableError as error:
    print(error, file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
