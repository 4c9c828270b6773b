"""The local cluster's clock."""

from inference.cluster.local.clock import Clock


class Times:
    def __init__(self) -> None:
        self.wall_s = 1000.0
        self.monotonic_s = 5.0

    def clock(self) -> Clock:
        return Clock(lambda: self.wall_s, lambda: self.monotonic_s)

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


def test_clock_follows_the_systems_time():
    times = Times()
    clock = times.clock()
    times.pass_s(3)
    assert clock() == 1003
    times.wall_s += 3600  # the laptop slept: the monotonic clock stood still
    assert clock() == 4603


def test_clock_goes_on_where_the_systems_time_is_set_back():
    times = Times()
    clock = times.clock()
    times.wall_s -= 3600
    assert clock() == 1000
    times.pass_s(2)
    assert clock() == 1002
    times.wall_s += 3600
    times.pass_s(1)
    assert clock() == 1003
