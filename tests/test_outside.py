"""What a signal's handler raises reaches the caller as it is, wherever the signal comes; nobody else is blamed."""

import functools
import os
import signal
import sys
from typing import Any

import numpy as np
import pytest
from helpers.trees import all_bits

import amos_ref
from amos_ref import closed_form, errors, options, rules
from amos_ref.optimizers import closed_form as closed_form_optimizer
from amos_ref.storage import files

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no signal that is free")


class Object:
    def method(self, number, frame):
        raise TimeoutError("alarm")

    __call__ = method


def plain(number, frame):
    raise TimeoutError("alarm")


def anything(*args):
    raise TimeoutError("alarm")


def with_more(mine, number, frame):
    raise TimeoutError("alarm")


def calls_another(number, frame, more=None, *rest, last=1):
    plain(number, None)


HANDLERS = {
    "a function": plain,
    "*args": anything,
    "a method": Object().method,
    "an object": Object(),
    "a partial": functools.partial(with_more, 1),
    "what it calls": calls_another,
}


@pytest.fixture(autouse=True, params=list(HANDLERS))
def handler(request):
    kept = signal.signal(signal.SIGUSR1, HANDLERS[request.param])
    yield
    signal.signal(signal.SIGUSR1, kept)


def alarm(*args):
    signal.raise_signal(signal.SIGUSR1)
    raise AssertionError


class Number:
    def __float__(self):
        return alarm()


PARAMS = {"w": np.ones(3)}
make: Any = amos_ref.Amos


def step(opt):
    params = {"w": np.ones(3)}
    state = opt.init(params)
    before = all_bits((params, state))
    try:
        opt.step(params, {"w": np.ones(3)}, state)
    finally:
        assert all_bits((params, state)) == before


def save(path, monkeypatch):
    path.write_text("old")
    opt = amos_ref.Amos(0.1)
    monkeypatch.setattr(files.os, "fsync", alarm)
    try:
        amos_ref.save(path, PARAMS, opt.init(PARAMS), opt)
    finally:
        assert path.read_text() == "old"
        assert len(os.listdir(path.parent)) == 1


PLACES = {
    "schedule": (options, lambda *_: step(make(alarm))),
    "the schedule's number": (rules, lambda *_: step(make(lambda t: Number()))),
    "rule": (rules, lambda *_: step(amos_ref.Amos(0.1, eta=alarm))),
    "direction": (closed_form_optimizer, lambda *_: step(amos_ref.ClosedFormAmos(0.1, half_life=9, direction=alarm))),
    "p_t": (closed_form, lambda *_: closed_form.s([3], alpha_0=0.1, decay="recurrence", p_t=alarm)),
    "save": (files, save),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_a_handler_raises_comes_as_it_is_and_nothing_has_changed(place, tmp_path, monkeypatch):
    with pytest.raises(TimeoutError, match=r"^alarm$"):
        PLACES[place][1](tmp_path / "file", monkeypatch)


@pytest.mark.parametrize("place", PLACES)
def test_it_would_be_taken_for_a_mistake_of_the_code_that_it_meets(place, tmp_path, monkeypatch):
    monkeypatch.setattr(PLACES[place][0], "pass_on", lambda error: None)
    with pytest.raises(errors.AmosError):
        PLACES[place][1](tmp_path / "file", monkeypatch)


def test_mistakes_of_the_code_itself_are_named_as_before():
    def knows_frames(t, frame):
        raise TimeoutError("mine")

    def mistaken(*args):
        knows_frames(args, sys._getframe().f_back)

    with pytest.raises(errors.ScheduleError, match=r"learning_rate\(1\) raised TimeoutError: mine"):
        step(make(mistaken))


def test_what_a_schedule_makes_of_it_is_the_schedules(monkeypatch):
    def schedule(t):
        try:
            alarm()
        except TimeoutError as error:
            raise KeyError("mine") from error

    with pytest.raises(errors.ScheduleError, match="KeyError"):
        step(make(schedule))
