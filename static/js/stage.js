// The projector: light or dark, full screen, and a display that stays awake.

import "./live.js";

const root = document.documentElement;
const KEY = "crowdspike-theme";
const IDLE_AFTER_MS = 3000;

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function toggleTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  try {
    localStorage.setItem(KEY, root.dataset.theme);
  } catch {
    // It lasts until the page is left.
  }
}

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else root.requestFullscreen?.().catch(() => {});
}

async function stayAwake() {
  if (!document.hidden) await navigator.wakeLock?.request("screen").catch(() => {});
}

try {
  const theme = localStorage.getItem(KEY);
  if (theme) root.dataset.theme = theme;
} catch {
  // The system's choice stands.
}
document.querySelector("#theme-toggle")?.addEventListener("click", toggleTheme);
document.querySelector("#fullscreen-toggle")?.addEventListener("click", toggleFullscreen);
document.addEventListener("visibilitychange", stayAwake);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "t") toggleTheme();
  if (event.key === "f") toggleFullscreen();
});
stayAwake();

// Controls and cursor go away while nobody touches them.
let idleTimer = 0;
function active() {
  delete document.body.dataset.idle;
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => {
    document.body.dataset.idle = "";
  }, IDLE_AFTER_MS);
}
for (const name of ["pointermove", "pointerdown", "keydown", "focusin"]) document.addEventListener(name, active);
active();
