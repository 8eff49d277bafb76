"""Ports that misbehave, each in one way."""

import numpy as np

from amos_ref.conformance.ports.failures import Crash
from helpers.toy_port import OPTIONS, ToyPort


class Raising(ToyPort):
    def step(self, grads):
        raise ZeroDivisionError("no step today\nsecond line")


class Quitting(ToyPort):
    def step(self, grads):
        raise SystemExit(0)


class Mumble(Exception):
    def __str__(self):
        raise RuntimeError


class Mute(ToyPort):
    def step(self, grads):
        raise Mumble


class Liar(Exception):
    verdict = "conforms"


class Lying(ToyPort):
    def step(self, grads):
        raise Liar("all is well")


class Odd(ToyPort):
    """Its message holds what XML, Markdown and UTF-8 cannot hold, or take for their own."""

    def step(self, grads):
        raise ValueError("\x00\x1b[31m\udc80 <&]]>|`é")


class Above(BaseException):
    pass


class Raised(ToyPort):
    def step(self, grads):
        raise Above("of all exceptions")


class Posing(ToyPort):
    """Its failure says of itself that it conforms."""

    def step(self, grads):
        class Posed(Crash):
            verdict = "conforms"

        raise Posed("all is well")


class Named(ToyPort):
    """Its exception has a name that a terminal would obey."""

    def step(self, grads):
        raise type("\x1b[2J", (Exception,), {})


class Crashed(ToyPort):
    def step(self, grads):
        raise Crash("ended by signal 11")


class Drifting(ToyPort):
    def step(self, grads):
        return {name: a * np.nan for name, a in super().step(grads).items()}


class Overflowing(ToyPort):
    """Wrong everywhere, and infinite in one entry, which says more."""

    def step(self, grads):
        out = {name: a + 1 for name, a in super().step(grads).items()}
        for a in out.values():
            a.flat[0] = np.inf
        return out


class Reshaping(ToyPort):
    def step(self, grads):
        return {name: np.zeros((2, 9)) for name in super().step(grads)}


class Flat(ToyPort):
    def step(self, grads):
        return {name: a.reshape(-1) for name, a in super().step(grads).items()}


class Complex(ToyPort):
    def step(self, grads):
        return {name: a + 0j for name, a in super().step(grads).items()}


class Losing(ToyPort):
    def step(self, grads):
        return {"kernel": super().step(grads)["kernel"]}


class Wordy(ToyPort):
    def step(self, grads):
        return dict.fromkeys(super().step(grads), "much")


class Empty(ToyPort):
    def step(self, grads):
        return None


class Stateless(ToyPort):
    def state(self):
        return None


class HalfStateless(ToyPort):
    def state(self):
        return {"v": None}


class Scribbling(ToyPort):
    def step(self, grads):
        out = super().step(grads)
        for g in grads.values():
            if g is not None:
                g[...] = 7.0
        return {name: a.copy() for name, a in out.items()}


class Aliasing(ToyPort):
    """Keeps each gradient and writes to it one step later, as a momentum buffer without a copy does."""

    def init(self, params, hyper):
        super().init(params, hyper)
        self.kept = {}

    def step(self, grads):
        for g in self.kept.values():
            g *= 0.5
        self.kept = {name: g for name, g in grads.items() if g is not None}
        return super().step(grads)


class InPlace(ToyPort):
    """Steps the arrays it was given, as most optimizers do; no misbehaviour."""

    def init(self, params, hyper):
        super().init(params, hyper)
        self.own = params

    def step(self, grads):
        for name, a in super().step(grads).items():
            self.own[name][...] = a
        return self.own


class Endless(ToyPort):
    """Never returns from one of its calls, and catches what it can."""

    def __init__(self, where="step"):
        super().__init__(options=OPTIONS - {"eta"} if where == "own_eta" else OPTIONS)
        self.where = where

    def loop(self, where):
        while where == self.where:
            try:
                while True:
                    pass
            except Exception:
                pass

    def init(self, params, hyper):
        self.loop("init")
        super().init(params, hyper)

    def step(self, grads):
        if self.t == 1:
            self.loop("step")
        return super().step(grads)

    def own_eta(self, params):
        self.loop("own_eta")
