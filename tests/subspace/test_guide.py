"""The program of docs/runs-without-tff.md: it learns, and sends little."""

import pathlib
import re

import numpy as np

GUIDE = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'runs-without-tff.md'


def test_the_guides_program_learns_and_sends_little(capsys):
  text = GUIDE.read_text(encoding='utf-8')
  program, = re.findall(r'^```python\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
  again = ''.join(re.findall(r'^    (stored = .*\n|server = Server\.from_bytes.*\n)', text, re.MULTILINE))
  names = {'__name__': 'guide'}
  exec(compile(program + again, str(GUIDE), 'exec'), names)
  server, goal = names['server'], names['clients'][0].goal
  assert np.linalg.norm(server.copy['model'] - goal) < 0.3 * np.linalg.norm(goal)
  assert float(capsys.readouterr().out) < 0.1
  assert server.to_bytes() == names['stored']
  assert server.round == 200 and server.timeline.size < 20_000
