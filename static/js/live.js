// For stage and console: the clock from each snapshot, and whether the stream is there.

import { drawCountdowns, setServerTime } from "./clock.js";
import { show } from "./page.js";

const connection = document.querySelector("[data-connection]");
const events = document.querySelector("#events");
const SILENT_AFTER_MS = 4000;
let heardAt = performance.now();

events.addEventListener("snapshot", (event) => {
  heardAt = performance.now();
  setServerTime(JSON.parse(event.detail.data).now_ms);
});
document.addEventListener("htmx:after:swap", drawCountdowns);
setInterval(() => {
  const lost = performance.now() - heardAt > SILENT_AFTER_MS;
  show(connection, lost ? "Connection lost. Reconnecting…" : "");
}, 1000);
