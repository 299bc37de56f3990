"""Names and messages come from a model, which may be hostile: each format escapes them here and nowhere else."""

from __future__ import annotations

import re
from urllib.parse import quote

_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control, format and direction-changing characters, and halves of surrogate pairs."""

_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_MARKDOWN = re.compile(r"[\\`*_\[\]#|~!]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
_TICKS = re.compile("`+")


def visible(text: str) -> str:
    r"""One line in which every control, invisible or direction-changing character is spelled out (`\x1b`, `\n`)."""
    return _INVISIBLE.sub(_spelled, text)


def visible_lines(text: str) -> list[str]:
    """The lines of a text that may have several, each as `visible`."""
    return [visible(line) for line in text.replace("\r\n", "\n").split("\n")]


def encodable(text: str, encoding: str | None) -> str:
    r"""The text with what the stream's encoding lacks replaced: dots and dashes by ASCII, letters by `\u5c42`."""
    name = encoding or "utf-8"
    try:
        text.encode(name)
    except UnicodeEncodeError:
        plain = text.translate(_ASCII)
        return plain.encode(name, "backslashreplace").decode(name)
    except LookupError:
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
    return text


def github_data(text: str) -> str:
    """The message of a GitHub workflow command: percent and line ends encoded, other controls spelled out."""
    lines = visible_lines(text.replace("%", "%25"))
    return "%0A".join(lines)


def github_property(text: str) -> str:
    """A property of a GitHub workflow command: as the message, on one line, colon and comma encoded too."""
    return visible(text).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")


def xml_text(text: str) -> str:
    """Text that XML 1.0 can hold, line by line; markup characters are the XML writer's to escape."""
    return "\n".join(visible_lines(text))


def markdown(text: str) -> str:
    """Text in GitHub's markdown, on one line: no markup, HTML, table cell, mention or issue link of its own."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", visible(text))
    for character, entity in _HTML.items():
        escaped = escaped.replace(character, entity)
    return escaped.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def markdown_prose(text: str) -> str:
    """As `markdown`, but what stands in single backticks is code, as rules write it."""
    parts = visible(text).split("`")
    if len(parts) % 2 == 0:
        return markdown(text)
    return "".join(markdown_code(part) if n % 2 and part else markdown(part) for n, part in enumerate(parts))


def markdown_code(text: str) -> str:
    """A code span that ends where it should, also in a table cell."""
    plain = visible(text)
    if "|" in plain:
        # no escape works in a code span of a table in every renderer: HTML's own element does
        return f"<code>{markdown(plain)}</code>"
    fence = "`" * (max((len(run) for run in _TICKS.findall(plain)), default=0) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") or not plain.strip() else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def markdown_fence(lines: list[str]) -> list[str]:
    """A fenced block around lines of code."""
    longest = max((len(run) for line in lines for run in _TICKS.findall(line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *lines, fence]


def sarif_text(text: str) -> str:
    """A plain SARIF message (2.1.0, 3.11.5 and 3.11.6): no placeholder, no embedded link of its own."""
    plain = "\n".join(visible_lines(text)).replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    return plain.replace("{", "{{").replace("}", "}}")


def uri_path(path: str) -> str:
    """A path as a URI reference."""
    return quote(path.replace("\\", "/"), safe="/~.-_", errors="surrogateescape")


_ASCII = str.maketrans(
    {
        "·": "-",
        "\u2013": "-",
        "\u2014": "-",
        "…": "...",
        "≥": ">=",
        "≤": "<=",
        "\u00d7": "x",
        "\u2019": "'",
        "✓": "ok",
        "✗": "-",
    }
)


def _spelled(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
