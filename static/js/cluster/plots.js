// The plots of the last five minutes, drawn once a second at most. Their values stand beside them as text.

import uPlot from "../../lib/uplot.js";

const SPAN_S = 300;
const KEEP_S = 1200;
const STEPPED = uPlot.paths.stepped({ align: 1 });

/** Columns as `/stage/{code}/history` gives them, cut to what is kept. */
export class Series {
  constructor() {
    this.columns = { t: [] };
  }

  load(columns) {
    const points = this.last ? [this.last] : [];
    this.columns = columns;
    for (const point of points) this.add(point);
  }

  /** True when a second has begun. */
  add(point) {
    this.last = point;
    const { t } = this.columns;
    const known = t.length && t.at(-1) >= point.t;
    if (t.length && t.at(-1) > point.t) return false;
    for (const [name, value] of Object.entries(point)) {
      const column = (this.columns[name] ??= []);
      if (known) column[column.length - 1] = value;
      else column.push(value);
      if (column.length > KEEP_S) column.shift();
    }
    return !known;
  }

  /** Seconds before now, and what `read` makes of each point, with a gap where seconds are missing. */
  window(reads) {
    const { t } = this.columns;
    const now = t.at(-1);
    const rows = [[], ...reads.map(() => [])];
    let before = null;
    for (let i = Math.max(0, t.length - SPAN_S - 1); i < t.length; i++) {
      if (t[i] < now - SPAN_S) continue;
      if (before !== null && t[i] - before > 3) {
        rows[0].push(before + 1 - now);
        reads.forEach((_, k) => rows[k + 1].push(null));
      }
      rows[0].push(t[i] - now);
      reads.forEach((read, k) => rows[k + 1].push(read(this.columns, i)));
      before = t[i];
    }
    return rows;
  }
}

const column = (name) => (columns, i) => columns[name][i];
const WHO = ["audience", "amplified", "scripted", "api"];
const stack = (upTo) => (columns, i) => WHO.slice(0, upTo + 1).reduce((sum, who) => sum + columns[who][i], 0);

// Each series: what to draw, the ink, and how. Areas are stacked: the tallest is drawn first.
const PLOTS = {
  queue: {
    upper: true,
    floor: 50,
    series: [
      { read: column("goal"), ink: 2, dash: [6, 4], width: 0.28, step: true },
      { read: column("metric"), ink: 1, width: 0.38, area: true },
    ],
  },
  pods: {
    upper: true,
    floor: 4,
    whole: true,
    series: [
      { read: column("ready"), ink: 1, width: 0.38, step: true, area: true },
      { read: column("desired"), ink: 2, dash: [6, 4], width: 0.34, step: true },
    ],
  },
  ttft: {
    floor: 1.5,
    series: [
      { read: () => 1, ink: 2, dash: [6, 4], width: 0.2 },
      { read: column("ttft_p50_s"), ink: 3, width: 0.22 },
      { read: column("ttft_p95_s"), ink: 1, width: 0.38 },
    ],
  },
  load: {
    floor: 20,
    series: [
      { read: stack(3), fill: "plain" },
      { read: stack(2), fill: "dots" },
      { read: stack(1), fill: "hatch" },
      { read: stack(0), fill: "solid" },
    ],
  },
  tokens: { floor: 200, series: [{ read: column("tokens_per_s"), ink: 1, width: 0.38, area: true }] },
};

export class Plots {
  constructor(root, series) {
    this.root = root;
    this.series = series;
    this.plots = new Map();
    this.places = [...root.querySelectorAll("[data-plot]")];
    new ResizeObserver(() => this.#build()).observe(root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#build());
    new MutationObserver(() => this.#build()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  draw() {
    if (this.root.offsetWidth === 0 || document.hidden || !this.series.columns.t.length) return;
    for (const [name, plot] of this.plots) {
      plot.setData(this.series.window(PLOTS[name].series.map((one) => one.read)));
    }
  }

  // For a size and a theme; both change rarely.
  #build() {
    for (const plot of this.plots.values()) plot.destroy();
    this.plots.clear();
    if (this.root.offsetWidth === 0) return;
    const inks = readInks(this.root);
    for (const place of this.places) {
      const { offsetWidth: width, offsetHeight: height } = place;
      if (width < 40 || height < 20) continue;
      const name = place.dataset.plot;
      const bare = PLOTS[name].upper && place.closest(".show-both") !== null; // the time stands below the lower ones
      const empty = [[], ...PLOTS[name].series.map(() => [])];
      this.plots.set(name, new uPlot(options(PLOTS[name], inks, width, height, bare), empty, place));
    }
    this.draw();
  }
}

function readInks(root) {
  const style = getComputedStyle(root);
  const value = (name) => style.getPropertyValue(name).trim();
  return {
    unit: parseFloat(style.fontSize) / 2,
    font: style.fontFamily,
    text: value("--muted"),
    grid: value("--line"),
    ink: [value("--surface"), value("--cl-1"), value("--cl-2"), value("--cl-3")],
    soft: value("--cl-soft"),
  };
}

function options(plot, inks, width, height, bare) {
  const { unit } = inks;
  const axis = { stroke: inks.text, font: `${Math.round(1.7 * unit)}px ${inks.font}`, ticks: { show: false } };
  return {
    width,
    height,
    padding: [0.5 * unit, 0.6 * unit, bare ? unit : 0, 0],
    legend: { show: false },
    cursor: { show: false },
    select: { show: false },
    scales: {
      x: { time: false, range: () => [-SPAN_S, 0] },
      y: { range: (_, low, high) => [0, Math.max(plot.floor, high ?? 0) * 1.12] },
    },
    axes: [
      {
        ...axis,
        show: !bare,
        size: 2.4 * unit,
        gap: 0.2 * unit,
        grid: { show: false },
        splits: () => [-SPAN_S, -240, -180, -120, -60, 0],
        values: (_, splits) => splits.map((s) => (s === 0 || s === -SPAN_S ? "" : `−${-s / 60} min`)),
      },
      {
        ...axis,
        size: 5.2 * unit,
        gap: 0.5 * unit,
        grid: { stroke: inks.grid, width: 1 },
        splits: (_, __, low, high) => ticks(high, plot.whole),
        values: (_, splits) => splits.map((value) => (value >= 10_000 ? `${value / 1000}k` : String(value))),
      },
    ],
    series: [{}, ...plot.series.map((one) => drawn(one, inks))],
  };
}

function drawn(one, inks) {
  if (one.fill) {
    return { stroke: inks.ink[1], width: 0.08 * inks.unit, fill: pattern(one.fill, inks), points: { show: false } };
  }
  return {
    stroke: inks.ink[one.ink],
    width: Math.max(1.5, one.width * inks.unit),
    dash: one.dash,
    fill: one.area ? inks.soft : undefined,
    paths: one.step ? STEPPED : undefined,
    points: { show: false },
    spanGaps: false,
  };
}

/** Two or three round values from 0 up to below `high`. */
function ticks(high, whole) {
  const rough = high / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let n = 0; n * step <= high; n++) found.push(Number((n * step).toPrecision(6)));
  return found;
}

// Told apart without colour: solid, hatched, dotted, plain.
function pattern(name, { ink, unit, soft }) {
  if (name === "solid") return ink[1];
  if (name === "plain") return ink[3];
  const size = Math.max(6, Math.round(1.3 * unit)) * devicePixelRatio;
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const brush = tile.getContext("2d");
  brush.fillStyle = name === "hatch" ? ink[0] : ink[2];
  brush.fillRect(0, 0, size, size);
  if (name === "hatch") {
    brush.fillStyle = soft;
    brush.fillRect(0, 0, size, size);
    brush.strokeStyle = ink[1];
    brush.lineWidth = size / 4;
    brush.beginPath();
    for (const shift of [-size, 0, size]) {
      brush.moveTo(shift - 1, size + 1);
      brush.lineTo(shift + size + 1, -1);
    }
    brush.stroke();
  } else {
    brush.fillStyle = ink[0];
    brush.beginPath();
    brush.arc(size / 2, size / 2, size / 5, 0, 7);
    brush.fill();
  }
  return brush.createPattern(tile, "repeat");
}
