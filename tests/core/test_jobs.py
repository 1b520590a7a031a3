"""Independent calls run in order, in parallel, as `joblib.parallel_config` says."""

from __future__ import annotations

import os
import threading
import time

import joblib
import pytest

from ls3dw.core.jobs import run_all


def where(number: int) -> tuple[int, int, str]:
    time.sleep(0.002 * (number % 3))
    return number, os.getpid(), threading.current_thread().name


def test_few_calls_run_here_and_many_on_threads() -> None:
    few = list(run_all(where, [(number,) for number in range(4)]))
    assert {name for _, _, name in few} == {threading.current_thread().name}
    many = list(run_all(where, [(number,) for number in range(64)]))
    assert [number for number, _, _ in many] == list(range(64))
    assert {process for _, process, _ in many} == {os.getpid()}
    assert list(run_all(where, [])) == []


def test_the_users_configuration_counts() -> None:
    calls = [(number,) for number in range(40)]
    with joblib.parallel_config("loky", n_jobs=2):
        found = list(run_all(where, calls))
    assert [number for number, _, _ in found] == list(range(40))
    assert os.getpid() not in {process for _, process, _ in found}
    with joblib.parallel_config(n_jobs=1):
        assert {name for _, _, name in run_all(where, calls)} == {threading.current_thread().name}


def test_an_error_ends_all_calls_before_it_is_raised() -> None:
    running, started = [], []

    def call(number: int) -> int:
        started.append(number)
        running.append(number)
        time.sleep(0.01)
        running.remove(number)
        if number == 3:
            raise KeyError(number)
        return number

    with pytest.raises(KeyError):
        list(run_all(call, [(number,) for number in range(500)]))
    assert running == []
    assert len(started) < 200
