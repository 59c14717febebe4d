"""Tars as other programs write them."""

import io
import tarfile


def added(tar, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def write_samples(path, samples):
    """A tar with the files of each key."""
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for ending, content in files.items():
                added(tar, f"{key}.{ending}", content)


def header(name=b"a.txt", size=0, kind=b"0", field=None):
    """512 bytes of ustar, whatever they claim; `field` stands for the size as it is."""
    block = bytearray(512)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:136] = field if field is not None else b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name, content=b"", kind=b"0"):
    """An entry by hand."""
    return header(name, len(content), kind) + content + bytes(-len(content) % 512)


def pax(key, value):
    """A header that says more of the one that follows."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return member(b"pax", str(length).encode() + rest, b"x")


def between(content):
    """A tar that holds something between two good samples, good/a and good/b."""
    good = [member(b"good/%c.txt" % each, b"a word") + member(b"good/%c.jpg" % each, b"pixels") for each in b"ab"]
    return good[0] + content + good[1] + bytes(1024)
