"""The Huffman code of HPACK (RFC 7541, 5.2 and appendix B).

The code is canonical: the lengths alone say everything, so only they are written here. Encoding joins bit strings and lets
`int` turn them into bytes. Decoding is an automaton over whole bytes: a state is an inner node of the code tree, and its row
says for each byte which symbols come out and where the automaton goes. Rows are filled as they are needed, because real text
touches few of the 65,536 cells.
"""

from __future__ import annotations

from typing import Final

# Bits per symbol 0..255, then EOS: 257 small numbers as text of two digits each.
_LENGTHS: Final = (
    "13232828282828282824302828302828282828282828302828282828282828280610101213060811101008110806060605050506060606060606"
    "07081506121013060707070707070707070707070707070707070707070708070813191314061505060506050606060507070606060506070605"
    "05060707070707151114132820222020222222232223232323232423242422232423232323212223222323242221202222232321232222242122"
    "23232121222123222323202222222322222326262019222322252626262727262425192126272726272421212626282727272024202122212123"
    "22222525242426232627262627272727272827272727272630"
)

# One cell of a row: the next row (None: the byte completes EOS, which is an error) and the symbols that came out.
_EOS: Final = 256


class _Node:
    """An inner node of the code tree and, as an automaton state, its row of cells."""

    __slots__ = ("accepting", "cells", "one", "symbol", "zero")

    def __init__(self) -> None:
        self.zero: _Node | None = None
        self.one: _Node | None = None
        self.symbol = -1
        """the decoded symbol of a leaf, -1 for an inner node"""
        self.accepting = False
        """the input may end here: fewer than eight one-bits since the last symbol"""
        self.cells: list[tuple[_Node, bytes] | None] | None = None


def _codes() -> list[tuple[int, int]]:
    """(code, length) of every symbol, EOS last, from the lengths: equal lengths count upwards in symbol order."""
    lengths = [int(_LENGTHS[i : i + 2]) for i in range(0, len(_LENGTHS), 2)]
    codes = [(0, 0)] * len(lengths)
    code = 0
    previous = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - previous
        codes[symbol] = (code, length)
        code += 1
        previous = length
    return codes


def _tree() -> _Node:
    root = _Node()
    for symbol, (code, length) in enumerate(_codes()):
        node = root
        for shift in range(length - 1, -1, -1):
            child = node.one if code >> shift & 1 else node.zero
            if child is None:
                child = _Node()
                if code >> shift & 1:
                    node.one = child
                else:
                    node.zero = child
            node = child
        node.symbol = symbol
    node = root
    for _ in range(8):  # the root itself and up to seven bits of padding, which are the first bits of EOS
        node.accepting = True
        assert node.one is not None
        node = node.one
    return root


_ROOT: Final = _tree()
_BITS: Final[list[str]] = [format(code, f"0{length}b") for code, length in _codes()[:256]]


def _cell(state: _Node, byte: int) -> tuple[_Node, bytes] | None:
    """Walk the eight bits of one byte from a state."""
    node = state
    out = bytearray()
    for shift in range(7, -1, -1):
        child = node.one if byte >> shift & 1 else node.zero
        assert child is not None
        if child.symbol == _EOS:
            return None
        if child.symbol >= 0:
            out.append(child.symbol)
            node = _ROOT
        else:
            node = child
    return node, bytes(out)


def decode(data: bytes) -> bytes | None:
    """The text of a Huffman-coded string, or None where the coding is wrong (EOS inside, bad padding)."""
    state = _ROOT
    out: list[bytes] = []
    for byte in data:
        cells = state.cells
        if cells is None:
            cells = state.cells = [None] * 256
        cell = cells[byte]
        if cell is None:
            cell = _cell(state, byte)
            if cell is None:
                return None
            cells[byte] = cell
        state, text = cell
        out.append(text)
    if not state.accepting:
        return None
    return b"".join(out)


def encode(text: bytes) -> bytes:
    """The Huffman code of a text, padded with ones."""
    if not text:
        return b""
    bits = "".join([_BITS[byte] for byte in text])
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
