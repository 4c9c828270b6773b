// The cluster's half of the projector: follows the stage's stream, and chooses what the stage shows.

import { Figures } from "./figures.js";
import { Plots, Series } from "./plots.js";
import { Tiles } from "./slots.js";

const KEY = "crowdspike-show";
const MISSED_S = 5;
const SHOWS = ["both", "cluster", "room"];
const root = document.querySelector("#cluster");
const figures = new Figures(root);
const tiles = new Tiles(root.querySelector(".cl-slots"));
const series = new Series();

function shown() {
  return SHOWS.find((name) => document.body.classList.contains(`show-${name}`)) ?? "both";
}

function show(name) {
  for (const one of SHOWS) document.body.classList.toggle(`show-${one}`, one === name);
}

function cycle() {
  const next = SHOWS[(SHOWS.indexOf(shown()) + 1) % SHOWS.length];
  show(next);
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // It lasts until the page is left.
  }
}

// The address chooses first, then what was chosen on this screen before.
if (!new URLSearchParams(location.search).has("show")) {
  try {
    const kept = localStorage.getItem(KEY);
    if (SHOWS.includes(kept)) show(kept);
  } catch {
    // Both, then.
  }
}
document.querySelector("#show-toggle").addEventListener("click", cycle);
document.addEventListener("keydown", (event) => {
  if (event.key === "c" && !event.ctrlKey && !event.metaKey && !event.altKey) cycle();
});

const plots = new Plots(root, series);

document.querySelector("#events").addEventListener("snapshot", (event) => {
  const { cluster } = JSON.parse(event.detail.data);
  if (!cluster) return;
  tiles.show(cluster);
  figures.show(cluster);
  if (series.last && cluster.point.t - series.last.t > MISSED_S) loadHistory();
  if (series.add(cluster.point)) plots.draw();
});

async function loadHistory() {
  const answer = await fetch(root.dataset.history).catch(() => null);
  if (!answer?.ok) return;
  series.load(await answer.json());
  plots.draw();
}
loadHistory();
