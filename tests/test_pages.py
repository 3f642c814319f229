"""Pages from templates: whatever is shown is a text, and nothing is shown by mistake."""

import jinja2
import pytest

from tff_compress import pages


def test_values_are_escaped_and_a_missing_one_is_an_error(tmp_path):
  (tmp_path / 'it.html').write_text("{% extends 'page.html' %}{% block content %}<p>{{ said }}</p>{% endblock %}")
  page = pages.render(str(tmp_path), 'it.html', title='<b>', said='<script>"&\' {{ 7 * 7 }}')
  assert '<title>&lt;b&gt;</title>' in page and '<p>&lt;script&gt;&#34;&amp;&#39; {{ 7 * 7 }}</p>' in page
  assert "default-src 'none'" in page
  with pytest.raises(jinja2.UndefinedError, match='said'):
    pages.render(str(tmp_path), 'it.html', title='')
