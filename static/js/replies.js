// The model's replies as they stream in. They are only ever put in as text.

import { htmx } from "./page.js";

const open = new Map();

/** Follows every reply on the page that is not complete. Call it after each swap. */
export function followReplies() {
  for (const element of document.querySelectorAll("[data-reply]")) {
    if (!open.has(element) && !element.dataset.done) follow(element);
  }
  for (const [element, source] of open) {
    if (!element.isConnected) close(element, source);
  }
}

/** Connects again: a phone that slept, or changed its network, may hold a dead connection. */
export function reconnectReplies() {
  for (const [element, source] of open) close(element, source);
  followReplies();
}

function close(element, source) {
  source.close();
  clearTimeout(source.retry);
  open.delete(element);
}

function follow(element) {
  const box = element.closest(".reply");
  const state = box?.querySelector("[data-reply-state]");
  const after = element.dataset.after;
  const source = new EventSource(element.dataset.reply + (after ? `?after=${encodeURIComponent(after)}` : ""));
  open.set(element, source);

  source.addEventListener("line", (event) => {
    if (state) state.textContent = inWords(JSON.parse(event.data));
  });
  source.addEventListener("delta", (event) => {
    element.append(JSON.parse(event.data));
    element.dataset.after = event.lastEventId;
    if (state) state.hidden = true;
  });
  source.addEventListener("restart", () => {
    element.textContent = "";
    if (state) state.hidden = false;
  });
  source.addEventListener("done", (event) => {
    element.dataset.done = "1";
    close(element, source);
    box?.setAttribute("aria-busy", "false");
    if (state) {
      state.hidden = !JSON.parse(event.data).failed;
      state.textContent = "The model could not answer this time.";
    }
    htmx.trigger(element, "reply:done");
  });
  source.onerror = () => {
    // The browser tries again by itself after a broken stream, but never after an error status.
    if (source.readyState !== EventSource.CLOSED || open.get(element) !== source) return;
    source.retry = setTimeout(() => {
      close(element, source);
      if (element.isConnected) follow(element);
    }, 1000 + 2000 * Math.random());
  };
}

function inWords({ state, position }) {
  if (state === "warming") return "The model is warming up. Your reply will come.";
  if (position > 1) return `You are ${ordinal(position)} in line.`;
  return "The model is thinking…";
}

function ordinal(n) {
  const tens = n % 100;
  const suffix = tens >= 11 && tens <= 13 ? "th" : ({ 1: "st", 2: "nd", 3: "rd" }[n % 10] ?? "th");
  return `${n}${suffix}`;
}
