// Pods and the nodes under them, each in a place that it keeps for as long as it lives.

import { age, put, usd, write } from "./format.js";

/**
 * Gives pods and nodes their places. `slots` is an array of `{pod, node}` (names or null) and is changed: who is gone
 * leaves, who is there stays, a newcomer takes the first place that suits it. What finds no place is not shown.
 */
export function arrange(slots, pods, nodes) {
  const podNames = new Set(pods.map((pod) => pod.name));
  const nodeNames = new Set(nodes.map((node) => node.name));
  for (const slot of slots) {
    if (!podNames.has(slot.pod)) slot.pod = null;
    if (!nodeNames.has(slot.node)) slot.node = null;
  }
  for (const pod of pods) {
    if (slots.some((slot) => slot.pod === pod.name)) continue;
    const place =
      slots.find((slot) => slot.pod === null && pod.node !== null && slot.node === pod.node) ??
      slots.find((slot) => slot.pod === null && slot.node === null) ??
      slots.find((slot) => slot.pod === null);
    if (place) place.pod = pod.name;
  }
  // A pod that has been given a node gets it under it; what was there by guess goes where that one was.
  for (const pod of pods) {
    const place = slots.find((slot) => slot.pod === pod.name);
    if (!place || pod.node === null || place.node === pod.node || !nodeNames.has(pod.node)) continue;
    const from = slots.find((slot) => slot.node === pod.node);
    const shared = from && pods.some((other) => other.name === from.pod && other.node === pod.node);
    if (from && !shared) from.node = place.node;
    place.node = pod.node;
  }
  const waiting = new Set(pods.filter((pod) => pod.node === null).map((pod) => pod.name));
  for (const node of nodes) {
    if (slots.some((slot) => slot.node === node.name)) continue;
    const place =
      slots.find((slot) => slot.node === null && waiting.has(slot.pod)) ??
      slots.find((slot) => slot.node === null && slot.pod === null);
    if (place) place.node = node.name;
  }
  return slots;
}

export class Tiles {
  constructor(list) {
    this.tiles = [...list.children].map((item) => ({
      item,
      fill: item.querySelector(".pod-fill rect"),
      icon: item.querySelector(".pod-icon use"),
      parts: Object.fromEntries(
        ["pod-word", "pod-queue", "pod-running", "pod-max", "pod-name", "pod-age", "node-type", "node-capacity", "node-price"].map(
          (name) => [name, item.querySelector(`.${name}`)],
        ),
      ),
    }));
    this.slots = this.tiles.map(() => ({ pod: null, node: null }));
  }

  show({ pods, nodes }) {
    arrange(this.slots, pods, nodes);
    const podOf = new Map(pods.map((pod) => [pod.name, pod]));
    const nodeOf = new Map(nodes.map((node) => [node.name, node]));
    this.slots.forEach((slot, index) => {
      const tile = this.tiles[index];
      drawPod(tile, podOf.get(slot.pod));
      drawNode(tile, nodeOf.get(slot.node));
      put(tile.item, "aria-hidden", String(slot.pod === null && slot.node === null));
    });
  }
}

// What has gone keeps its words while it fades.
function drawPod({ item, fill, icon, parts }, pod) {
  put(item, "data-phase", pod?.phase ?? "none");
  if (!pod) {
    put(fill, "y", "100%");
    put(fill, "height", "0%");
    return;
  }
  const serves = pod.phase === "ready" || pod.phase === "unready" || pod.phase === "terminating";
  const known = serves && pod.running !== null;
  const share = known ? Math.min(100, Math.round((100 * pod.running) / pod.max)) : 0;
  put(fill, "y", `${100 - share}%`);
  put(fill, "height", `${share}%`);
  put(icon, "href", `#cl-phase-${pod.phase}`);
  write(parts["pod-word"], pod.word);
  write(parts["pod-running"], known ? String(pod.running) : serves ? "–" : age(pod.phase_s));
  write(parts["pod-max"], serves ? `/${pod.max}` : "");
  write(parts["pod-queue"], pod.waiting ? `${pod.waiting} wait` : "");
  write(parts["pod-name"], pod.restarts ? `${pod.short} ↻${pod.restarts}` : pod.short);
  write(parts["pod-age"], age(pod.age_s));
}

function drawNode({ item, parts }, node) {
  put(item, "data-node", node?.phase ?? "none");
  if (!node) return;
  put(item, "data-capacity", node.capacity === "Spot" ? "spot" : "other");
  const going = node.ends_in_s === null ? "draining" : `${age(node.ends_in_s)} left`;
  write(parts["node-type"], node.type);
  write(parts["node-capacity"], node.capacity || "node");
  const price = node.usd_per_hour === null ? "" : usd(node.usd_per_hour);
  write(parts["node-price"], node.phase === "ready" ? price : node.phase === "ordered" ? "ordered" : going);
}
