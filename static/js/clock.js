// The server's clock on this device, and every countdown drawn by it.

let offsetMs = 0;

/** Takes the server's time from an answer that was asked for `roundTripMs` ago. */
export function setServerTime(serverMs, roundTripMs = 0) {
  if (Number.isFinite(serverMs)) offsetMs = serverMs + roundTripMs / 2 - Date.now();
}

export function serverNow() {
  return Date.now() + offsetMs;
}

/** Draws what is left in every `[data-deadline]`: seconds as text, or a progress from full to empty. */
export function drawCountdowns() {
  for (const element of document.querySelectorAll("[data-deadline]")) {
    const deadline = Number(element.dataset.deadline);
    if (!deadline) continue;
    const leftMs = Math.max(0, deadline - serverNow());
    if (element instanceof HTMLProgressElement) {
      const opened = Number(element.dataset.opened);
      element.value = opened ? Math.round((element.max * leftMs) / (deadline - opened)) : 0;
    } else if (element.childElementCount === 0 && !element.hidden) {
      const seconds = String(Math.ceil(leftMs / 1000));
      if (element.textContent !== seconds) element.textContent = seconds;
    }
  }
}

setInterval(drawCountdowns, 250);
