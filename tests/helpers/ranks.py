"""Ranks as threads: a communicator with the methods of mpi4py's that the package calls, where there is no MPI."""

import queue
import threading

import numpy as np

MIN = "min"
PATIENCE = 20.0  # seconds after which a rank that waits for others gives up


class Request:
    """A request that is done when it is asked for."""

    def __init__(self, done):
        self.done = done

    def Test(self):
        return self.done()


class Shared:
    def __init__(self, size):
        self.size, self.slots = size, [None] * size
        self.barrier = threading.Barrier(size, timeout=PATIENCE)
        self.mail = {(a, b): queue.Queue() for a in range(size) for b in range(size)}


class Comm:
    """One rank's communicator."""

    def __init__(self, shared, rank):
        self.shared, self.rank, self.payload = shared, rank, 0
        self.calls = []

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.shared.size

    def allgather(self, what):
        self.calls.append("allgather")
        return self._exchange(what)

    def _exchange(self, what):
        self.shared.slots[self.rank] = what
        self.shared.barrier.wait()
        found = list(self.shared.slots)
        self.shared.barrier.wait()
        return found

    def bcast(self, what, root=0):
        return self._exchange(what)[root]

    def Allreduce(self, values, found, op):
        assert op == MIN
        self.calls.append("Allreduce")
        found[...] = np.min(self._exchange(values.copy()), axis=0)

    def Iallreduce(self, values, found, op):
        """Never done: the other ranks do not come."""
        return Request(lambda: False)

    def Allgatherv(self, sent, received):
        self.calls.append("Allgatherv")
        buffer, counts = received
        parts = self._exchange(sent.copy())
        assert [part.size for part in parts] == list(counts)
        self.payload = sent.nbytes
        buffer[...] = np.concatenate(parts)

    def Send(self, data, rank):
        self.shared.mail[self.rank, rank].put(data.copy())

    def Recv(self, data, rank):
        got = self.shared.mail[rank, self.rank].get(timeout=PATIENCE)
        assert (got.size, got.dtype) == (data.size, data.dtype)
        data[...] = got


def run(size, work):
    """Return what ``work(comm)`` returns, or the exception that it raises, on each of so many ranks."""
    shared, found = Shared(size), [None] * size

    def one(rank):
        try:
            found[rank] = work(Comm(shared, rank))
        except BaseException as error:
            found[rank] = error
            if isinstance(error, threading.BrokenBarrierError):
                shared.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a rank hangs"
    return found


def results(size, work):
    """Return what ``work(comm)`` returns on each rank; raise what a rank raised."""
    found = run(size, work)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found
