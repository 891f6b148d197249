"""What every page shares: one HTML file with its style and scripts inside, which a browser shows without a network.

A page carries its own content security policy: the only code that a browser will run in it are the two scripts whose
hashes stand in its head, so a class or file name can neither run anything nor reach the network.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from luthier import units
from luthier.report import chart, words

if TYPE_CHECKING:
    from jinja2 import Environment


def fill(template: str, title: str, version: str, content: Mapping[str, Any]) -> str:
    """A whole page.

    Args:
        template: file name under `templates`; it extends `frame.html.j2`.
        title: of the browser's window.
        version: of Luthier.
        content: what the template names.
    """
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = _environment()
    plotly_js: str = get_plotlyjs()
    page_js = _asset("page.js")
    html = environment.get_template(template).render(
        **content,
        title=title,
        version=version,
        words=words,
        show=units.show,
        to_json=chart.to_json,
        plotly_js=Markup(plotly_js),
        page_js=Markup(page_js),
        page_css=Markup(_asset("page.css")),
        script_hashes=" ".join(f"'sha256-{_sha256(script)}'" for script in (plotly_js, page_js)),
    )
    # names of files may hold lone surrogates, which no encoding can store
    return html.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("luthier.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    source, _, _ = environment.loader.get_source(environment, name)
    return source


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
