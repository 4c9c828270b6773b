from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Theirs

from inference.histogram import Histogram

BOUNDS = (0.01, 0.1, 1.0, 7.5)


@given(st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0, 20))))
def test_counts_as_prometheus_own_histogram_does(values):
    ours, theirs = Histogram(BOUNDS), Theirs("h", "h", buckets=BOUNDS, registry=CollectorRegistry())
    for value in values:
        ours.observe(value)
        theirs.observe(value)
    samples = [s for metric in theirs.collect() for s in metric.samples]
    assert ours.buckets() == [(s.labels["le"], s.value) for s in samples if s.name == "h_bucket"]
    assert [ours.sum] == [s.value for s in samples if s.name == "h_sum"]
    assert ours.count == len(values)


def test_an_observation_can_count_several_times():
    histogram = Histogram(BOUNDS)
    histogram.observe(0.1, times=3)
    assert histogram.buckets()[1] == ("0.1", 3.0)
    assert histogram.sum == 0.1 * 3
