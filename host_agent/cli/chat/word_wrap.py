"""Wrap a text at words while the text arrives in pieces, which may end within a word. Pure.

If a word turns out not to fit, its beginning is erased and written again on the next line.
"""

from __future__ import annotations

from rich.cells import cell_len

_ERASE_BACK = "\x1b[{cells}D\x1b[K"


class WordWrap:
    """Wraps one text. Between two pieces, it remembers the cursor's column and the incomplete last word."""

    def __init__(self) -> None:
        self._column = 0
        self._word = ""

    def feed(self, text: str, width: int) -> str:
        """Return the characters to write to a terminal of `width` columns for the next piece of the text.

        The last column stays free, because terminals differ in where the cursor is after a character in that
        column.
        """
        out = []
        for character in text:
            if character == "\n":
                out.append(self._new_line())
            elif character == " ":
                out.append(self._space(width))
            else:
                out.append(self._letter(character, width))
        return "".join(out)

    def _new_line(self) -> str:
        self._column, self._word = 0, ""
        return "\n"

    def _space(self, width: int) -> str:
        if self._column + 1 >= width:
            return self._new_line()
        self._word = ""
        self._column += 1
        return " "

    def _letter(self, character: str, width: int) -> str:
        cells, word_cells = cell_len(character), cell_len(self._word)
        erased = ""
        if self._column + cells >= width:
            if self._word and word_cells < self._column:
                erased = _ERASE_BACK.format(cells=word_cells) + "\n" + self._word
                self._column = word_cells
            else:  # a word that is longer than a line is cut
                erased = self._new_line()
        self._word += character
        self._column += cells
        return erased + character
