// For stage and console: the clock from each snapshot, and whether the stream is there.

import { drawCountdowns, setServerTime } from "./clock.js";
import { show } from "./page.js";

const connection = document.querySelector("[data-connection]");
const events = document.querySelector("#events");
const SILENT_AFTER_MS = 4000;
const STORE_FAILS = "The store does not answer. Phones keep their answers and send them again.";
let heardAt = performance.now();
let trouble = "";

events.addEventListener("snapshot", (event) => {
  heardAt = performance.now();
  const snapshot = JSON.parse(event.detail.data);
  setServerTime(snapshot.now_ms);
  trouble = snapshot.store_fails ? STORE_FAILS : "";
});
document.addEventListener("htmx:after:swap", drawCountdowns);
setInterval(() => {
  const lost = performance.now() - heardAt > SILENT_AFTER_MS;
  show(connection, lost ? "Connection lost. Reconnecting…" : trouble);
}, 1000);
