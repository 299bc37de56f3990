"""HTML: one file with everything in it, that opens offline, in any theme, and without a mouse.

The charts are Altair's, drawn in the page by Vega's own scripts, which vl-convert brings along. The page's content
security policy names its two scripts by their checksums and forbids everything else: no name from a model can run, and
nothing is ever fetched. The whole file is ASCII, so that it survives any encoding.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TextIO

from bncheck.facts.extras import install
from bncheck.facts.findings import Report
from bncheck.report.escape import visible
from bncheck.version import __version__

if TYPE_CHECKING:
    from jinja2 import Template

_PART = re.compile(r"(?<=[/_.:])(?=[^/_.:])")
_ENDING = re.compile(r"<(/script|!--)", re.IGNORECASE)
NEEDED = f"the HTML report needs Altair, vl-convert and Jinja: install them with: {install('html')}"


def write(report: Report, stream: TextIO) -> None:
    """Writes one report as a page. Raises ImportError where the plotting library is not installed."""
    stream.write(page_text([report], many=False))


def write_run(reports: Sequence[Report], stream: TextIO) -> None:
    """Writes the reports of a run as one page, the checkpoints one below the other. Raises ImportError."""
    stream.write(page_text(reports, many=True))


def page_text(reports: Sequence[Report], *, many: bool) -> str:
    """The page, in ASCII. Raises ImportError where the extra `html` is not installed."""
    try:
        from bncheck.report.html import page as _html_page  # noqa: PLC0415 - Altair is optional, and heavy

        template, library = _template(), _library()
    except ImportError as error:
        raise ImportError(f"{NEEDED} ({error})") from error
    script = _asset("page.js")
    text = template.render(
        **_html_page.page(reports, many=many),
        version=__version__,
        style=_asset("page.css"),
        library=library,
        script=script,
        policy=_policy(library, script),
    )
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


def notebook(report: Report) -> str:
    """A frame that holds the page, for Jupyter: neither side's styles or scripts touch the other's."""
    try:
        text = page_text([report], many=False)
    except ImportError as error:
        return f"<pre>{html.escape(_plain(report))}</pre>\n<p><small>{html.escape(str(error))}</small></p>"
    title = html.escape(visible(f"bncheck: {report.verdict.value}, {report.target.path}"))
    return (
        f'<iframe title="{title}" sandbox="allow-scripts allow-downloads" loading="lazy" '
        'style="width:100%;height:720px;border:1px solid rgba(128,128,128,.35);border-radius:8px" '
        f'srcdoc="{html.escape(text)}"></iframe>'
    )


def _plain(report: Report) -> str:
    import io  # noqa: PLC0415 - only without the extra

    from bncheck.report.text import text  # noqa: PLC0415 - as above

    stream = io.StringIO()
    text.write(report, stream)
    return stream.getvalue()


def script_json(value: Any) -> str:
    """JSON that may stand in a script element: in ASCII, names made visible, without anything that ends the element."""
    text = json.dumps(_visible(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _visible(entry) for key, entry in value.items()}
    return [_visible(entry) for entry in value] if isinstance(value, (list, tuple)) else value


@lru_cache(maxsize=1)
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, in the version whose specifications Altair writes."""
    import altair as alt  # noqa: PLC0415 - optional
    import vl_convert  # noqa: PLC0415 - optional

    wanted = alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    known = vl_convert.get_vegalite_versions()
    text: str = vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=wanted if wanted in known else known[-1]
    )
    return _inline(text)


@lru_cache(maxsize=4)
def _asset(name: str) -> str:
    text = files("bncheck.report").joinpath("assets").joinpath(name).read_text(encoding="utf-8")
    return _inline(text) if name.endswith(".js") else text


def _inline(script: str) -> str:
    """A script that may stand in a page: in ASCII, without anything that ends its element or opens a comment."""
    text = _ENDING.sub(r"<\\\1", script.replace("\r\n", "\n"))
    return "".join(c if c < "\x80" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))


def _policy(*scripts: str) -> str:
    """Only these scripts, only styles of the page itself, and no connection of any kind."""
    sums = [base64.b64encode(hashlib.sha256(script.encode("ascii")).digest()).decode("ascii") for script in scripts]
    allowed = " ".join(f"'sha256-{sum_}'" for sum_ in sums)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import BaseLoader, Environment, StrictUndefined  # noqa: PLC0415 - optional
    from markupsafe import Markup, escape  # noqa: PLC0415 - comes with Jinja

    def shown(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    def code(text: str) -> Markup:
        return Markup("\n").join(visible(line) for line in text.split("\n"))

    def prose(text: str) -> Markup:
        parts = visible(text).split("`")
        if len(parts) % 2 == 0:
            return escape(visible(text))
        marked = (Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(parts))
        return Markup("").join(marked)

    environment = Environment(
        loader=BaseLoader(),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "code": code,
        # a long name may be broken where its parts meet
        "breakable": lambda text: Markup("<wbr>").join(_PART.split(visible(text))),
        "prose": prose,
        # what these give is a script or style of our own, or JSON without markup
        "prose_lines": lambda text: Markup("\n").join(prose(line) for line in text.split("\n")),
        "raw": Markup,
        "json": lambda value: Markup(script_json(value)),  # noqa: S704 - it ends no element
    }
    return environment.from_string(_asset("page.html.j2"))
