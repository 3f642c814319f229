"""HTML pages without references to anything outside them. Needs Jinja2, which is imported when a page is made."""

from __future__ import annotations

import functools
import os


def render(folder: str, name: str, **values: object) -> str:
  """A page from a template; every value is escaped, so that texts from outside stay texts.

  Args:
    folder: path of the folder of templates; they may extend those of this package, such as page.html.
    name: of the template.
    **values: what it shows. One that the template asks for and that is missing is an error.
  """
  return _environment(folder).get_template(name).render(values)


@functools.lru_cache
def _environment(folder):
  import jinja2
  loader = jinja2.FileSystemLoader([folder, os.path.join(os.path.dirname(__file__), 'templates')])
  return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                            lstrip_blocks=True)
