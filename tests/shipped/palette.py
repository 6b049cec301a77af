#!/usr/bin/env python3
"""Makes a browser's picture small enough for the documents: without the empty rows at its end, and with a
palette of 256 colours. (Text and flat areas have few; what is between goes to the nearest.)

    tests/shipped/palette.py IN.png OUT.png
"""

import collections
import struct
import sys
import zlib


def chunks(data):
    at = 8
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        yield kind, data[at + 8 : at + 8 + length]
        at += length + 12


def rows(data):
    """Rows of pixels, as bytes (PNG, second edition, 9: filtering)."""
    head, packed = None, b""
    for kind, content in chunks(data):
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", content)
        elif kind == b"IDAT":
            packed += content
    width, height, depth, colour, *_, interlace = head
    assert depth == 8 and colour in (2, 6) and interlace == 0, head
    size = 3 if colour == 2 else 4
    raw, before = zlib.decompress(packed), bytes(width * size)
    for y in range(height):
        at = y * (width * size + 1)
        kind, line = raw[at], bytearray(raw[at + 1 : at + 1 + width * size])
        for x in range(len(line)) if kind else ():
            left, up, corner = line[x - size] if x >= size else 0, before[x], before[x - size] if x >= size else 0
            if kind == 1:
                more = left
            elif kind == 2:
                more = up
            elif kind == 3:
                more = (left + up) // 2
            else:
                near = left + up - corner
                more = min((abs(near - left), 0, left), (abs(near - up), 1, up), (abs(near - corner), 2, corner))[2]
            line[x] = (line[x] + more) & 255
        before = bytes(line)
        yield [before[x : x + 3] for x in range(0, len(before), size)]


def main():
    picture = list(rows(open(sys.argv[1], "rb").read()))
    blank = picture[-1]
    while len(picture) > 1 and picture[-2] == blank:
        picture.pop()
    palette = [colour for colour, _ in collections.Counter(pixel for row in picture for pixel in row).most_common(256)]
    index = {colour: n for n, colour in enumerate(palette)}

    def of(pixel):
        if pixel not in index:
            index[pixel] = min(range(len(palette)), key=lambda n: sum((a - b) ** 2 for a, b in zip(palette[n], pixel)))
        return index[pixel]

    packed = zlib.compress(b"".join(b"\0" + bytes(map(of, row)) for row in picture), 9)
    head = struct.pack(">IIBBBBB", len(picture[0]), len(picture), 8, 3, 0, 0, 0)
    with open(sys.argv[2], "wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n")
        for kind, content in ((b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", packed), (b"IEND", b"")):
            out.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))


main()
