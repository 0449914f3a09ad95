"""The text of questions: HTML to plain text with its code kept, and the form in which two texts count as the same."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser

_BLOCKS = frozenset(("p", "div", "ul", "ol", "blockquote", "table", "hr", "section", "article", "dl", "figure")) | {
    f"h{level}" for level in range(1, 7)
}
_LINES = frozenset(("br", "tr", "dt", "dd"))
_UNSEEN = frozenset(("script", "style"))
_HTML = re.compile(r"</(?:p|pre|div|ul|ol|blockquote|table|h[1-6]|code)\s*>|<(?:br|hr)\s*/?>|<p>", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_SIGN = re.compile(r"[^\w\s]")


def plain_text(text: str) -> str:
    """HTML as plain text: code blocks in Markdown fences, inline code in backticks, paragraphs apart by a blank line.

    Text without an HTML paragraph, block or line break comes back as it is, without white space around it, so that
    `a < b` and `List<String>` in plain text survive.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    if _HTML.search(text) is None:
        return text.strip()
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.text()


def one_line(text: str) -> str:
    """A title: white space, line breaks included, becomes single spaces."""
    return " ".join(text.split())


def normalised(text: str) -> str:
    """What near-duplicates share: the words and numbers, in order, without case, punctuation, layout and HTML.

    Texts that have no words at all keep their signs. Numbers count: "3 kilometres" and "5 kilometres" are two texts.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain_text(text)).casefold())
    return " ".join(_WORD.findall(plain) or _SIGN.findall(plain))


class _Reader(HTMLParser):
    """Collects text. Unclosed and unknown tags are no errors: dumps are full of them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._code: list[str] | None = None
        """Text of the code block that is open."""
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif self._code is not None:
            if tag == "br":
                self._code.append("\n")
        elif tag == "pre":
            self._code = []
        elif tag == "code":
            self._parts.append("`")
        elif tag == "li":
            self._parts.append("\n- ")
        elif tag in _BLOCKS:
            self._parts.append("\n\n")
        elif tag in _LINES:
            self._parts.append("\n")
        elif tag == "img" and (described := dict(attrs).get("alt")):
            self._parts.append(described)

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag == "pre":
            self._end_code()
        elif self._code is not None:
            pass
        elif tag == "code":
            self._parts.append("`")
        elif tag in _BLOCKS:
            self._parts.append("\n\n")
        elif tag in ("td", "th"):
            self._parts.append(" ")

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._code is not None:
            self._code.append(data.replace("\0", ""))
        else:
            self._parts.append(re.sub(r"\s+", " ", data.replace("\0", "")))

    def text(self) -> str:
        """All of it. Code blocks stand between NUL characters, which no input has any more."""
        self._end_code()
        pieces = []
        for number, piece in enumerate("".join(self._parts).split("\0")):
            if number % 2:  # a code block: its layout is its meaning
                pieces.append(piece)
            else:
                lines = (re.sub(r"[ \t]+", " ", line).strip() for line in piece.split("\n"))
                pieces.append(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n"))
        return "\n\n".join(piece for piece in pieces if piece).strip()

    def _end_code(self) -> None:
        if self._code is None:
            return
        code, self._code = "".join(self._code).strip("\n"), None
        if code.strip():
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", code)), default=0))
            self._parts.append(f"\0{fence}\n{code}\n{fence}\0")
