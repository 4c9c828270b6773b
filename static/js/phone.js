// A phone in a room. It polls one small document, and fetches its own screen when that says that something happened.

import { drawCountdowns, serverNow, setServerTime } from "./clock.js";
import { Drafts } from "./drafts.js";
import { Outbox } from "./outbox.js";
import { show, swapScreen } from "./page.js";
import { followReplies, reconnectReplies } from "./replies.js";

const POLL_MS = 1000;
const SPREAD_MS = 500;
const BEACON_MS = 20_000;
const REFUSAL_SHOWN_MS = 10_000;
const KEPT = "No connection. Your answer is kept on this phone and will be sent.";

const screen = document.querySelector("#screen");
const connection = document.querySelector("[data-connection]");
const code = screen.dataset.code;
const drafts = new Drafts(code);
const outbox = new Outbox(code, { changed: paint, stored, refused });

let version = Number(screen.dataset.version);
let phase = "";
let pollTimer = 0;
let misses = [];
let roundTrips = [];
let refreshing = null;
let stale = false;

// ---- the screen

/** Fetches the screen. When that fails it is stale, and the next poll that comes through fetches it again. */
async function refresh(wanted = version) {
  while (refreshing) await refreshing;
  refreshing = swap(wanted).catch(() => false);
  stale = !(await refreshing);
  refreshing = null;
  return !stale;
}

async function swap(wanted) {
  const started = performance.now();
  const hadFocus = screen.contains(document.activeElement);
  const { ok, status } = await swapScreen(`/r/${code}/screen?v=${wanted}`);
  if (status === 401 || status === 403) location.reload();
  if (!ok) return false;
  const meta = document.querySelector("#screen-meta").dataset;
  setServerTime(Number(meta.now), performance.now() - started);
  screen.dataset.phase = meta.phase;
  if (screen.dataset.version !== meta.version) {
    scrollTo({ top: 0 });
    show(document.querySelector("#announce"), screen.querySelector("h1")?.textContent.trim() ?? "");
  }
  if (hadFocus && !screen.contains(document.activeElement)) screen.focus({ preventScroll: true });
  screen.dataset.activity = meta.activity;
  screen.dataset.version = meta.version;
  const nickname = document.querySelector("[data-nickname]:not(#screen-meta)");
  if (nickname) nickname.textContent = meta.nickname;
  afterSwap();
  return Number(meta.version) >= wanted;
}

function afterSwap() {
  drafts.restore();
  paint();
  followReplies();
  drawCountdowns();
}

// ---- the poll

async function poll() {
  clearTimeout(pollTimer);
  if (document.hidden) return;
  const started = performance.now();
  try {
    const response = await fetch(`/r/${code}/state`, {
      credentials: "omit",
      cache: "no-cache",
      signal: AbortSignal.timeout(5000),
    });
    if (response.status === 404) return location.reload();
    if (!response.ok) throw new Error(String(response.status));
    const state = await response.json();
    heard(performance.now() - started);
    await follow(state);
  } catch {
    missed();
  }
  const quiet = misses.at(-1) ? Math.min(8, 2 ** misses.filter(Boolean).length) : 1;
  clearTimeout(pollTimer);
  pollTimer = setTimeout(poll, POLL_MS * quiet * (0.8 + 0.4 * Math.random()));
}

async function follow(state) {
  // An answer from a cache may be older than one that came before it: a version never goes back.
  const closed = state.version === version && phase === "open" && state.phase !== "open";
  if (state.version < version || (state.version === version && !closed && !stale)) {
    if (state.version === version) phase = state.phase ?? "";
    return;
  }
  await new Promise((resolve) => setTimeout(resolve, SPREAD_MS * Math.random()));
  if (await refresh(state.version)) {
    version = state.version;
    phase = state.phase ?? "";
  }
}

function heard(roundTripMs) {
  const wasLost = misses.at(-1);
  misses = [...misses, false].slice(-10);
  roundTrips = [...roundTrips, roundTripMs].slice(-10);
  if (wasLost) {
    show(connection, "");
    outbox.flush();
    reconnectReplies();
  }
}

function missed() {
  misses = [...misses, true].slice(-10);
  if (misses.slice(-2).every(Boolean)) show(connection, outbox.items.length ? KEPT : "No connection. Trying again…");
}

function beacon() {
  if (document.hidden || roundTrips.length === 0) return;
  const sorted = [...roundTrips].sort((a, b) => a - b);
  const body = JSON.stringify({ rtt_ms: Math.round(sorted[sorted.length >> 1]), misses: misses.filter(Boolean).length });
  const headers = { "Content-Type": "application/json" };
  fetch(`/r/${code}/presence`, { method: "POST", body, headers }).catch(() => {});
}

function wake() {
  if (document.hidden) return;
  reconnectReplies();
  outbox.flush();
  poll();
}

// ---- what is sent

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-outbox]")) return;
  event.preventDefault();
  const fields = new FormData(form, event.submitter);
  const activity = fields.get("activity_id");
  if (outbox.waiting(activity) && !form.querySelector("textarea")) return;
  const id = newId();
  fields.set("response_id", id);
  outbox.add(id, activity, new URLSearchParams(fields).toString());
});

/** 96 random bits. `crypto.randomUUID` is missing on a page without TLS, as in a rehearsal on the local network. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Shows on each form what of it still waits. */
function paint() {
  for (const form of document.querySelectorAll("form[data-outbox]")) {
    const item = outbox.waiting(form.elements.activity_id.value);
    const status = form.querySelector("[data-outbox-status]");
    form.toggleAttribute("data-waiting", Boolean(item));
    form.setAttribute("aria-busy", String(Boolean(item)));
    const chosen = new URLSearchParams(item?.body ?? "").getAll("choice");
    for (const control of form.querySelectorAll("button, input[type=checkbox]")) {
      control.disabled = Boolean(item);
      if (control.name === "choice") control.toggleAttribute("data-chosen", chosen.includes(control.value));
    }
    if (item) show(status, outbox.tries > 0 ? "Not sent yet. It is kept on this phone and will be sent." : "Sending…");
    else if (!status?.hasAttribute("data-refused")) show(status, "");
  }
}

async function stored(item) {
  drafts.forget(item.activity);
  const question = formOf(item.activity)?.elements.question;
  if (question) question.value = "";
  await refresh();
  show(document.querySelector("#announce"), "Saved.");
}

async function refused(item, problem) {
  if (problem.status === 409) {
    drafts.forget(item.activity);
    await refresh();
  }
  // Where its form is gone, on top of the page.
  const status = formOf(item.activity)?.querySelector("[data-outbox-status]") ?? document.querySelector("[data-notice]");
  status.toggleAttribute("data-refused", true);
  show(status, problem.detail ?? "The server did not take this.");
  setTimeout(() => {
    status.toggleAttribute("data-refused", false);
    show(status, "");
  }, REFUSAL_SHOWN_MS);
}

function formOf(activity) {
  return [...document.querySelectorAll("form[data-outbox]")].find((f) => f.elements.activity_id.value === activity);
}

// ---- start

setServerTime(Number(screen.dataset.now));
phase = screen.dataset.phase ?? "";
afterSwap();
outbox.flush();
pollTimer = setTimeout(poll, POLL_MS * Math.random());
setTimeout(beacon, 3000);
setInterval(beacon, BEACON_MS);
addEventListener("online", wake);
addEventListener("offline", missed);
addEventListener("pageshow", (event) => event.persisted && wake());
document.addEventListener("visibilitychange", wake);

// The question closes by the server's clock; the screen that says so is fetched when that moment has passed.
setInterval(() => {
  const deadline = Number(document.querySelector("#screen-meta")?.dataset.deadline);
  if (phase !== "open" || !deadline || serverNow() < deadline + 200) return;
  phase = "closed";
  setTimeout(() => refresh(), 1200 * Math.random());
}, 250);
