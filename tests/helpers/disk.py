"""A disk whose power can be cut: what was not flushed may be lost, torn or written in another order."""

import itertools
import os
import stat


class File:
    """The content of one file: what is on the disk, and the writes that may or may not be."""

    def __init__(self, content=b""):
        self.flushed, self.pending = content, []

    def write(self, at, data):
        # Torn at two places: its beginning may be on the disk without its end, and its end without its beginning.
        cuts = [0, len(data) // 3, len(data) // 2, len(data)]
        self.pending += [(at + i, data[i:j]) for i, j in itertools.pairwise(cuts) if i < j]

    def flush(self):
        self.flushed, self.pending = apply(self.flushed, self.pending), []

    def after_a_cut(self):
        """Yield every content that the disk may hold."""
        return (apply(self.flushed, some) for some in subsets(self.pending))


class Disk:
    """What the calls of a writer, which happen as well, have done to the disk that has its folder.

    `forgetful` names what is not flushed though it was asked for: "file", "folder".
    """

    def __init__(self, forgetful=()):
        self.forgetful = forgetful
        self.names = {}  # of files, as they are on the disk
        self.now = {}  # the same, as programs see it
        self.moves = []  # changes of names that may or may not be on the disk: old name, new name, file
        self.opened = {}  # descriptor: [file or None for a folder, place]

    def watch(self, monkeypatch, after_each):
        """Watch what is done through these functions of os, and call back after each of them."""
        for name in ("open", "write", "lseek", "fsync", "close", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._noted(getattr(os, name), getattr(self, f"_{name}"), after_each))

    def cut(self, name):
        """Yield every content of the file of this name, or None for no such file, after a cut at this moment."""
        for moves in subsets(self.moves):
            names = dict(self.names)
            for move in moves:
                rename(names, *move)
            yield from names[name].after_a_cut() if name in names else [None]

    def _noted(self, original, note, after_each):
        def call(*arguments):
            found = original(*arguments)
            note(found, *arguments)
            after_each()
            return found

        return call

    def _move(self, old, new, file):
        self.moves.append((old, new, file))
        rename(self.now, old, new, file)

    def _open(self, descriptor, path, flags, *mode):
        file = None
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            name = os.path.basename(path)
            if flags & os.O_CREAT:
                self._move(None, name, File())
            file = self.now.get(name)
        self.opened[descriptor] = [file, 0]

    def _write(self, count, descriptor, data):
        file, at = self.opened[descriptor]
        file.write(at, bytes(data)[:count])
        self.opened[descriptor][1] += count

    def _lseek(self, place, descriptor, *_):
        self.opened[descriptor][1] = place

    def _fsync(self, _, descriptor):
        file, _ = self.opened[descriptor]
        if file is None and "folder" not in self.forgetful:
            for move in self.moves:
                rename(self.names, *move)
            self.moves = []
        elif file is not None and "file" not in self.forgetful:
            file.flush()

    def _close(self, _, descriptor):
        self.opened.pop(descriptor)

    def _replace(self, _, old, new):
        name = os.path.basename(old)
        self._move(name, os.path.basename(new), self.now[name])

    def _unlink(self, _, path):
        name = os.path.basename(path)
        self._move(name, None, self.now[name])


def rename(names, old, new, file):
    names.pop(old, None)
    if new is not None:
        names[new] = file


def apply(content, writes):
    room = bytearray(content)
    for at, data in writes:
        room.extend(bytes(max(0, at + len(data) - len(room))))
        room[at : at + len(data)] = data
    return bytes(room)


def subsets(things):
    return itertools.chain.from_iterable(itertools.combinations(things, n) for n in range(len(things) + 1))
