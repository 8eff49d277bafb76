"""Ranks as threads: a communicator with the methods of mpi4py's that the package calls, where there is no MPI."""

import threading

import numpy as np

MIN = "min"
PATIENCE = 120.0  # seconds after which a rank that waits for others gives up; they may be compiling


class HangsError(Exception):
    """A rank has waited for others that do not come."""


class Request:
    """What was begun and is to be waited for."""

    def __init__(self, shared, ready, finish):
        self.shared, self.ready, self.finish = shared, ready, finish

    def Test(self):
        with self.shared.changed:
            done = self.ready()
        if done:
            self.finish()
        return done

    def Wait(self):
        with self.shared.changed:
            if not self.shared.changed.wait_for(self.ready, PATIENCE):
                raise HangsError
        self.finish()


class Shared:
    def __init__(self, size):
        self.size, self.changed = size, threading.Condition()
        self.calls, self.mail = {}, {}


class Comm:
    """One rank's communicator. Calls are matched by their number, as MPI matches them, and must be of the same kind."""

    def __init__(self, shared, rank):
        self.shared, self.rank, self.payload = shared, rank, 0
        self.calls = []
        self.letters = {}

    @property
    def size(self):
        return self.shared.size

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.shared.size

    def _exchange(self, kind, what, finish):
        """All ranks give something; when they have, ``finish`` gets what they gave, in order."""
        given = self.shared.calls.setdefault(len(self.calls), {})
        self.calls.append(kind)
        with self.shared.changed:
            given[self.rank] = kind, what
            self.shared.changed.notify_all()

        def end():
            assert {kind for kind, _ in given.values()} == {kind}, "MPI would not match these calls"
            finish([given[rank][1] for rank in range(self.size)])

        return Request(self.shared, lambda: len(given) == self.size, end)

    def allgather(self, what):
        found = []
        self._exchange("allgather", what, found.extend).Wait()
        return found

    def Iallreduce(self, values, found, op):
        assert op == MIN
        return self._exchange("Iallreduce", values.copy(), lambda all: np.copyto(found, np.min(all, axis=0)))

    def Iallgather(self, sent, received):
        return self._exchange("Iallgather", sent.copy(), lambda all: np.copyto(received, np.concatenate(all)))

    def Iallgatherv(self, sent, received):
        buffer, counts = received
        self.payload = sent.nbytes if sent.dtype == np.float64 else self.payload  # not what is said

        def finish(parts):
            assert [part.size for part in parts] == list(counts)
            buffer[...] = np.concatenate(parts)

        return self._exchange("Iallgatherv", sent.copy(), finish)

    def Ibcast(self, data, root):
        return self._exchange("Ibcast", data.copy(), lambda all: np.copyto(data, all[root]))

    def _letter(self, way):
        self.letters[way] = number = self.letters.get(way, 0) + 1
        return (*way, number)

    def Isend(self, data, rank, tag):
        with self.shared.changed:
            self.shared.mail[self._letter((self.rank, rank, tag))] = data.copy()
            self.shared.changed.notify_all()
        return Request(self.shared, lambda: True, lambda: None)

    def Irecv(self, data, rank, tag):
        letter = self._letter((rank, self.rank, tag))

        def finish():
            got = self.shared.mail.pop(letter)
            assert (got.size, got.dtype) == (data.size, data.dtype)
            data[...] = got

        return Request(self.shared, lambda: letter in self.shared.mail, finish)


def run(size, work):
    """Return what ``work(comm)`` returns, or the exception that it raises, on each of so many ranks."""
    shared, found = Shared(size), [None] * size

    def one(rank):
        try:
            found[rank] = work(Comm(shared, rank))
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a rank hangs"
    assert not shared.mail or any(isinstance(each, BaseException) for each in found), "something sent is not received"
    return found


def results(size, work):
    """Return what ``work(comm)`` returns on each rank; raise what a rank raised."""
    found = run(size, work)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found
