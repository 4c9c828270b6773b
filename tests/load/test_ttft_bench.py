"""The bench of client against server: its arithmetic and its tables, and our tools against a simulated replica, where
both sides must have counted the same requests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.bench_ttft import histograms, peers, report
from loadgen.bench_ttft.__main__ import PAGE, Course, against, bench
from loadgen.bench_ttft.histograms import Served, Unreadable
from loadgen.bench_ttft.ours import TOOLS, Broken, Client, seen
from loadgen.bench_ttft.peers import Job
from loadgen.bench_ttft.report import Against, Round, Run, Tool
from loadgen.bench_ttft.work import ANSWER_TOKENS, PROMPT_TOKENS, NoCount, Work, work
from loadgen.gateway.report import write_docs
from loadgen.processes import free_port
from loadgen.spike import preflight
from loadgen.spike.point import Point
from loadgen.spike.preflight import Target
from loadgen.spike.server import ServerSample
from tests.processes import replica

CLIENT = Client(0.110, 160, 1.3, 160, 0)
SERVED = Served(0.100, 160, 1.2, 160, 160 * 64, 160 * 75)
ROUND = Round(CLIENT, SERVED, 0.05)
OURS, THEIRS = Tool("Locust", "2", True, [ROUND]), Tool("guidellm", "0.8.1", False, [ROUND])


def tables(*tools: Tool, others_share: float = 0.05) -> str:
    shared = [replace(tool, rounds=[replace(one, others_share=others_share) for one in tool.rounds]) for tool in tools]
    return report.markdown(Run("2026-11-21", "a machine", [Against("A replica", 8, 160, shared)]))


def sample(ttft_sum_s: float, count: float, e2e_sum_s: float) -> ServerSample:
    counts = {"ttft_count": count, "e2e_count": count, "prompt_tokens": 64 * count, "generation_tokens": 75 * count}
    return ServerSample(at_s=0, ttft_sum_s=ttft_sum_s, e2e_sum_s=e2e_sum_s, **counts)


def test_the_servers_means_are_of_what_came_between_two_readings() -> None:
    found = histograms.between(sample(5.0, 100, 50.0), sample(7.0, 120, 80.0))
    assert (found.ttft_count, found.e2e_count, found.prompt_tokens, found.completion_tokens) == (20, 20, 1280, 1500)
    assert (found.ttft_mean_s, found.e2e_mean_s) == pytest.approx((0.1, 1.5))


def test_a_server_that_counted_nothing_has_no_mean() -> None:
    with pytest.raises(Unreadable, match="no request"):
        histograms.between(sample(5.0, 100, 50.0), sample(5.0, 100, 50.0))


def test_a_tools_times_count_from_the_sending_and_what_was_not_served_is_lost() -> None:
    points = [
        Point(n=0, by="locust", due_s=0.0, sent_s=0.5, first_s=0.7, first_by="token", ended_s=1.5, status=200),
        Point(n=1, by="locust", due_s=1.0, sent_s=1.0, first_s=1.4, first_by="token", ended_s=3.0, status=200),
        Point(n=2, by="locust", due_s=2.0),
        Point(n=3, by="locust", due_s=2.0, sent_s=2.0, ended_s=2.1, status=500, error="500"),
    ]
    found = seen(points)
    assert (found.ttft_count, found.e2e_count, found.lost) == (2, 2, 2)
    assert (found.ttft_mean_s, found.e2e_mean_s) == pytest.approx((0.3, 1.5))


def test_beside_k6_the_first_tokens_are_the_probes_and_the_answers_those_of_both() -> None:
    points = [Point(n=n, by="k6", sent_s=0.0, headers_s=0.1, ended_s=1.0, status=200) for n in range(9)]
    points.append(Point(n=0, by="probe", sent_s=0.0, first_s=0.4, first_by="token", ended_s=2.0, status=200))
    found = seen(points)
    assert (found.ttft_mean_s, found.ttft_count) == (pytest.approx(0.4), 1)
    assert (found.e2e_mean_s, found.e2e_count) == (pytest.approx(1.1), 10)
    with pytest.raises(Broken, match="no first token"):
        seen(points[:9])


def test_a_gap_is_the_median_of_the_rounds_gaps() -> None:
    rounds = [
        Round(replace(CLIENT, ttft_mean_s=client), replace(SERVED, ttft_mean_s=server), 0.0)
        for client, server in ((0.010, 0.005), (0.020, 0.019), (0.100, 0.098))
    ]
    found = report.row(Tool("x", "", True, rounds))
    assert (found.ttft_client_ms, found.ttft_server_ms) == pytest.approx((20, 19))
    assert found.ttft_gaps_ms == pytest.approx((5, 1, 2))
    assert "+2.0 (+1.0 to +5.0)" in tables(Tool("x", "", True, rounds))
    assert (found.client_count, found.server_count) == (480, 480)


def test_each_row_has_both_sides_their_gap_and_their_ratio() -> None:
    text = tables(OURS, THEIRS)
    (line,) = [line for line in text.splitlines() if "Locust 2" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:5] == ["110.0", "100.0", "+10.0", "× 1.100"]
    assert cells[5:] == ["1,300.0", "1,200.0", "+100.0", "× 1.083", "160 / 160", "0"]
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    assert "64.0 tokens on average and an answer 75.0 of 75" in text


def test_the_furthest_of_ours_stands_beside_the_nearest_of_theirs() -> None:
    nearer, further = (replace(ROUND, client=replace(CLIENT, ttft_mean_s=s)) for s in (0.098, 0.104))
    aiperf = Tool("aiperf", "", False, [replace(ROUND, client=replace(CLIENT, ttft_mean_s=0.088))])
    text = tables(Tool("reader", "", True, [nearer]), Tool("Locust", "", True, [further]), aiperf, THEIRS)
    assert "TTFT: the furthest of ours from the server is Locust with 4.0 ms" in text
    assert "the nearest of theirs guidellm with 10.0 ms" in text
    assert "nearest of theirs" not in tables(OURS)


def test_a_sample_is_not_compared_where_the_requests_are_not_the_servers() -> None:
    sampled = replace(ROUND, client=replace(CLIENT, ttft_mean_s=0.2, ttft_count=10, e2e_mean_s=1.4))
    text = tables(Tool("k6", "", True, [sampled]), OURS, THEIRS)
    assert "TTFT: the furthest of ours from the server is Locust with 10.0 ms" in text
    assert "E2E: the furthest of ours from the server is k6 with 200.0 ms" in text


def test_a_sample_is_marked_as_one() -> None:
    sampled = Tool("k6", "", True, [replace(ROUND, client=replace(CLIENT, ttft_count=10, e2e_count=170))])
    assert "| 110.0¹ |" in tables(sampled) and "of 10 of 170 requests" in tables(sampled)
    assert "¹" not in tables(OURS)


def test_a_tool_or_a_server_that_was_not_to_be_had_says_why() -> None:
    assert "Not measured: aiperf, no such package." in tables(OURS, Tool("aiperf", "", False, failed="no such package"))
    assert "Broke off: Locust, it hung." in tables(replace(OURS, failed="it hung"))
    run = Run("2026-11-21", "a machine", [Against("vLLM", 8, 0, failed="it is not installed")])
    assert "**vLLM**, 8 requests/s: not measured, it is not installed" in report.markdown(run)
    json.dumps(report.to_json(run), allow_nan=False)


def test_a_busy_machine_is_said_to_be_one() -> None:
    assert "too much" in tables(OURS, others_share=0.4)
    assert "too much" not in tables(OURS, others_share=0.05)


def test_our_own_page_has_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    write_docs(page, "the new table", report.BEGIN, report.END)
    assert "the new table" in page.read_text(encoding="utf-8")


def job(folder: Path, requests: int) -> Job:
    target = Target(url="http://own.test", model="m", models=("m",), holds_headers=False, simulated=True, what="")
    return Job(target, Work(("a text",) * requests, 8, requests / 8), "0x", folder, folder)


def test_every_peer_gets_every_text_once_in_order(tmp_path: Path) -> None:
    for peer in peers.ALL:
        given = job(tmp_path, 3)
        assert "http://own.test" in " ".join(peer.command(given))
        rows = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
        texts = [row.get("prompt") or row["text"] for row in rows]
        assert texts == list(given.work.salted("0x")) == ["[0x-0] a text", "[0x-1] a text", "[0x-2] a text"]
        assert texts == [prompt.text for prompt in given.work.plan("k6", "0x").work]


def test_what_guidellm_and_aiperf_leave_is_read_in_seconds(tmp_path: Path) -> None:
    guidellm, aiperf = peers.ALL
    metrics = {
        "time_to_first_token_ms": {"successful": {"mean": 76.5, "count": 39}},
        "request_latency": {"successful": {"mean": 1.5, "count": 39}},
        "request_totals": {"successful": 39, "errored": 1, "incomplete": 0, "total": 40},
    }
    (tmp_path / "found.json").write_text(json.dumps({"benchmarks": [{"metrics": metrics}]}))
    assert guidellm.read(job(tmp_path, 40)) == Client(0.0765, 39, 1.5, 39, 1)
    (tmp_path / "found").mkdir()
    found = {"time_to_first_token": {"avg": 79.0, "count": 40}, "request_latency": {"avg": 1604.0, "count": 40}}
    (tmp_path / "found/profile_export_aiperf.json").write_text(json.dumps(found))
    assert aiperf.read(job(tmp_path, 40)) == Client(0.079, 40, 1.604, 40, 0)


def test_a_vllm_that_is_not_installed_is_told_in_its_place(tmp_path: Path) -> None:
    found = bench(["vllm"], ["reader"], Course(8, 1, 1, tmp_path / "none"), tmp_path)
    assert [one.failed.startswith("it is not installed") for one in found.against] == [True]


async def test_the_same_texts_come_each_time_one_for_each_request(tmp_path: Path) -> None:
    with replica(tmp_path) as process:
        target = await preflight.look(process.url)
        made = await work(target, rate=8, for_s=2)
        assert made == await work(target, rate=8, for_s=2)
    plan = made.plan("k6", "0k6")
    assert plan.planned == len(made.texts) == 16
    assert {prompt.max_tokens for prompt in plan.work} == {ANSWER_TOKENS}


async def test_a_server_that_counts_no_tokens_is_told() -> None:
    target = Target(
        url=f"http://127.0.0.1:{free_port()}", model="m", models=("m",), holds_headers=False, simulated=True, what=""
    )
    with pytest.raises(NoCount, match="/tokenize"):
        await work(target, rate=8, for_s=2)


async def test_client_and_server_count_the_same_requests(tmp_path: Path) -> None:
    with replica(tmp_path) as process:
        found = await against("simulated", process, list(TOOLS), Course(8, 2, 1, tmp_path / "none"), tmp_path)
    assert {tool.name: tool.failed for tool in found.tools} == dict.fromkeys(TOOLS.values(), "")
    rounds = {tool.name: tool.rounds[0] for tool in found.tools}
    for one in rounds.values():
        assert (one.client.e2e_count, one.client.lost) == (one.served.e2e_count, 0)
        assert one.served.completion_tokens == ANSWER_TOKENS * one.served.e2e_count
        assert one.served.prompt_tokens == pytest.approx(PROMPT_TOKENS * one.served.e2e_count, rel=0.1)
    for name in (TOOLS["reader"], TOOLS["locust"]):
        assert rounds[name].client.ttft_count == rounds[name].served.ttft_count == found.planned
    assert 0 < rounds[TOOLS["k6"]].client.ttft_count < rounds[TOOLS["k6"]].client.e2e_count
