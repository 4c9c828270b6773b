// Everything of the cluster that is text: figures, reasons, decisions, the delay chain, and a summary that is spoken.

import { age, count, plural, put, seconds, usd, write } from "./format.js";

const SPEAK_EVERY_MS = 10_000;
const RAIL = 800;

function sinceEdge(s) {
  return s < 10 && s % 1 ? `${s.toFixed(1)} s` : age(Math.round(s));
}

export class Figures {
  constructor(root) {
    this.places = new Map([...root.querySelectorAll("[data-cl]")].map((element) => [element.dataset.cl, element]));
    this.apiKey = root.querySelector("[data-key='api']");
    this.lines = [...root.querySelectorAll(".cl-line")];
    this.steps = [...root.querySelectorAll(".cl-step")];
    this.chain = root.querySelector(".cl-chain");
    this.parts = [...root.querySelectorAll(".cl-rail-part")];
    this.ties = [...root.querySelectorAll(".cl-rail-tie")];
    this.spokenAt = -Infinity;
  }

  show(cluster) {
    this.#figures(cluster);
    this.#keys(cluster);
    this.#now(cluster);
    this.#feed(cluster.feed);
    this.#chain(cluster.chain, cluster.since_edge_s);
    this.#speak(cluster);
  }

  #set(name, text) {
    write(this.places.get(name), text);
  }

  #badge(name, text) {
    const element = this.places.get(name);
    write(element, text);
    if (element.hidden !== (text === "")) element.hidden = text === "";
  }

  #figures({ scaling, pods, load, latency, cost }) {
    const ready = pods.filter((pod) => pod.phase === "ready").length;
    const inFlight = load.audience + load.amplified + load.scripted + load.api;
    this.#set("ready", String(ready));
    this.#set("ready-more", scaling ? `of ${scaling.desired}` : `of ${pods.length}`);
    this.#set("in-flight", count(inFlight));
    this.#set("waiting", load.waiting ? `${count(load.waiting)} wait` : "");
    this.#set("tokens", count(load.tokens_per_s));
    this.#set("ttft", seconds(latency.ttft_p95_s));
    const late = latency.ttft_p95_s !== null && latency.ttft_p95_s > latency.target_s;
    this.#set("ttft-more", latency.ttft_p95_s === null ? "" : late ? "▲ late" : "✓ ok");
    put(this.places.get("ttft-more"), "data-late", String(late));
    this.#set("usd-hour", usd(cost.usd_per_hour));
    this.#set("usd-million", usd(cost.usd_per_million_tokens));
    this.#set("usd-hour-label", `$/h, ${cost.basis}`);
  }

  #keys({ scaling, load, latency, point }) {
    this.#set("queue-metric", count(scaling?.metric));
    this.#set("queue-goal", count(scaling?.goal));
    this.#set("pods-ready", String(point.ready));
    this.#set("pods-desired", String(scaling?.desired ?? "–"));
    this.#set("ttft-p50", seconds(latency.ttft_p50_s));
    this.#set("ttft-p95", seconds(latency.ttft_p95_s));
    this.#set("ttft-target", `${latency.target_s} s`);
    for (const who of ["audience", "amplified", "scripted", "api"]) this.#set(`load-${who}`, count(load[who]));
    if (load.api) this.apiKey.dataset.seen = "";
    this.#set("tokens-rate", count(load.tokens_per_s));
  }

  #now({ simulated, speed_up, scaling, stale, age_s }) {
    const fast = speed_up && speed_up !== 1 ? `, cold starts at ${speed_up}×` : "";
    this.#badge("simulated", simulated ? `Simulated${fast}` : "");
    const states = [];
    if (stale) states.push(`View is ${age(Math.round(age_s))} old`);
    if (scaling?.fallback) states.push("KEDA fallback");
    if (scaling && scaling.pinned !== null) states.push(`Set to ${scaling.pinned} by hand`);
    if (scaling?.held) states.push("On hold");
    this.#badge("state", states.join(" · "));
    this.#set("why", scaling?.why ?? "");
  }

  #feed(feed) {
    this.lines.forEach((line, index) => {
      const one = feed[index];
      write(line.children[0], one ? (one.t_s === null ? `${age(one.ago_s)} ago` : `T+${age(one.t_s)}`) : "");
      write(line.children[1], one?.text ?? "");
      put(line, "data-kind", one?.kind ?? "none");
    });
  }

  // Above, the steps by when they came; below, each with its words; between them, what belongs together.
  #chain(chain, elapsedS) {
    put(this.chain, "data-known", String(chain !== null));
    if (chain === null) return;
    const times = chain.map((step) => step.t_s);
    const open = chain.some((step) => step.t_s === null && !step.why_not);
    const end = Math.max(1, open ? elapsedS : 0, ...times.filter((t) => t !== null));
    let last = 0;
    let shade = 0;
    chain.forEach((step, index) => {
      const cell = this.steps[index];
      const x = step.t_s === null ? null : (RAIL * Math.max(0, step.t_s)) / end;
      write(cell.children[0], step.t_s === null ? (step.why_not ? "–" : "…") : `T+${sinceEdge(step.t_s)}`);
      write(cell.children[1], step.why_not || step.label);
      write(cell.children[2], step.why_not ? "not needed" : step.short);
      put(cell, "data-done", String(step.t_s !== null));
      const centre = (RAIL * (index + 0.5)) / chain.length;
      put(this.ties[index], "d", x === null ? "" : `M${x.toFixed(1)} 12C${x.toFixed(1)} 28 ${centre} 24 ${centre} 40`);
      if (index === 0) return;
      const part = this.parts[index - 1];
      const width = x === null ? 0 : Math.max(0, x - last);
      if (width > 1) shade = 1 - shade;
      put(part, "class", `cl-rail-part cl-rail-${shade}`);
      put(part, "x", last.toFixed(1));
      put(part, "width", width.toFixed(1));
      last += width;
    });
  }

  #speak({ pods, scaling, latency, load, cost }) {
    const now = performance.now();
    if (now - this.spokenAt < SPEAK_EVERY_MS) return;
    this.spokenAt = now;
    const ready = pods.filter((pod) => pod.phase === "ready").length;
    const asked = scaling ? `, ${scaling.desired} asked for` : "";
    const first = latency.ttft_p95_s === null ? "" : ` First token within ${seconds(latency.ttft_p95_s)} for 95 %.`;
    const price = cost.usd_per_hour === null ? "" : ` ${usd(cost.usd_per_hour)} per hour.`;
    const inFlight = load.audience + load.amplified + load.scripted + load.api;
    this.#set("summary", `${plural(ready, "pod")} ready${asked}. ${plural(inFlight, "request")} in flight.${first}${price}`);
  }
}
