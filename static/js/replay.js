// A replay's badge, and its keys: space pauses, arrows go 30 s back or on, Home to the start, - and + change the speed.

const badge = document.querySelector("#replay");
const RELOAD_AFTER_MS = 400;
const KEYS = {
  " ": "pause",
  ArrowLeft: "back",
  ArrowRight: "forward",
  Home: "start",
  "-": "slower",
  "+": "faster",
};

let reload = 0;

// What the plots have drawn does not hold any more. Who goes back far presses several times: the last one counts.
function reloadSoon() {
  clearTimeout(reload);
  reload = setTimeout(() => location.reload(), RELOAD_AFTER_MS);
}

function tell(replay) {
  if (String(replay.jumps) !== badge.dataset.jumps) {
    badge.dataset.jumps = replay.jumps;
    reloadSoon();
  }
  for (const place of badge.querySelectorAll("[data-replay]")) {
    const words = replay[place.dataset.replay];
    if (place.textContent !== words) place.textContent = words;
  }
  document.title = document.title.replace(/^Replay, [^·]*·/, `${replay.title} ·`);
}

document.querySelector("#events").addEventListener("snapshot", (event) => tell(JSON.parse(event.detail.data).replay));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("button, a, input")) return;
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  if (reload) reloadSoon();
  fetch(badge.dataset.act + action, { method: "POST" }).catch(() => {});
});
badge.dataset.live = "";
