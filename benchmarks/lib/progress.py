"""Progress on standard error."""

import sys

import tqdm


def say(text):
  """Shows a line; on a terminal it overwrites the last one, and an empty text removes it."""
  if sys.stderr.isatty():
    print(f'\r\033[K{text}', end='', file=sys.stderr, flush=True)
  elif text:
    print(text, file=sys.stderr, flush=True)


def bar(items, label):
  """Goes through `items` and shows how many are done: a bar on a terminal, otherwise a line every 30 seconds."""
  return tqdm.tqdm(items, label, file=sys.stderr, mininterval=0.2 if sys.stderr.isatty() else 30)
