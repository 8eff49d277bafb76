"""Power cuts after every call of a save, on a disk that drops, tears and reorders what was not flushed."""

import os

import pytest
from helpers.checkpoints import NEW, OLD, state_bits
from helpers.disk import Disk

import amos_ref
from amos_ref import errors
from amos_ref.storage import container

NEWER = NEW._replace(count=3, v={name: a * 3 for name, a in NEW.v.items()})


class Lost(AssertionError):
    """The disk holds neither the old state nor the new one."""


class Cuts:
    """Save, and after each call of the writer load what the disk could hold if the power were cut."""

    def __init__(self, tmp_path, monkeypatch, forgetful=()):
        (tmp_path / "disk").mkdir()
        self.path, self.after = tmp_path / "disk" / "state", tmp_path / "after"
        self.disk = Disk(forgetful)
        self.allowed, self.moments, self.disks = [], 0, 0
        monkeypatch.setattr(container, "BYTES_AT_ONCE", 16)
        self.disk.watch(monkeypatch, self.check)

    def save(self, state, old):
        self.allowed = [old and state_bits(old), state_bits(state)]
        amos_ref.save_state(self.path, state)
        self.allowed = [state_bits(state)]
        self.check()

    def check(self):
        self.moments += 1
        for content in self.disk.cut(self.path.name):
            self.disks += 1
            found = content
            if content is not None:
                with open(self.after, "wb") as file:  # not by the functions that are watched
                    file.write(content)
                try:
                    found = state_bits(amos_ref.load_state(self.after))
                except errors.StorageError as error:
                    raise Lost(str(error)) from error
            if found not in self.allowed:
                raise Lost(str(found))


def test_a_power_cut_at_any_moment_leaves_the_old_or_the_new_file(tmp_path, monkeypatch):
    cuts = Cuts(tmp_path, monkeypatch)
    for old, new in ((None, OLD), (OLD, NEW), (NEW, NEWER)):
        cuts.save(new, old)
    print(f"\n{cuts.moments} moments, {cuts.disks} disks")
    # Flushed or not, each moment has at least one disk, and some have several.
    assert cuts.disks > cuts.moments > 30


@pytest.mark.parametrize("forgetful", ["file", "folder"])
def test_a_writer_that_does_not_flush_is_caught(forgetful, tmp_path, monkeypatch):
    cuts = Cuts(tmp_path, monkeypatch, forgetful)
    with pytest.raises(Lost):
        cuts.save(OLD, None)


def test_a_writer_that_flushes_too_late_is_caught(tmp_path, monkeypatch):
    def replace_then_flush(path, fill):
        file = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT)
        fill(file)
        os.replace(f"{path}.tmp", path)
        os.fsync(file)
        os.close(file)

    cuts = Cuts(tmp_path, monkeypatch)
    cuts.save(OLD, None)
    monkeypatch.setattr(container, "replace_file", replace_then_flush)
    with pytest.raises(Lost, match="cannot read"):
        cuts.save(NEW, OLD)


def test_a_writer_in_place_is_caught(tmp_path, monkeypatch):
    def overwrite(path, fill):
        file = os.open(path, os.O_WRONLY)
        fill(file)
        os.fsync(file)
        os.close(file)

    cuts = Cuts(tmp_path, monkeypatch)
    cuts.save(OLD, None)
    monkeypatch.setattr(container, "replace_file", overwrite)
    with pytest.raises(Lost, match="cannot read"):
        cuts.save(NEW, OLD)
