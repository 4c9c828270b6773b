// What every page shares: htmx, and a swap that tells whether it came through.

export const htmx = window.htmx;

/** Swaps the answer of `url` into `#screen`, keeping focus and what was typed. False when the server did not answer well. */
export async function swapScreen(url) {
  let status = 0;
  const note = (event) => {
    status = event.detail.ctx?.response?.status ?? 0;
  };
  document.addEventListener("htmx:after:request", note, { once: true });
  try {
    await htmx.ajax("GET", url, { target: "#screen", swap: "innerMorph" });
  } catch {
    return { ok: false, status: 0 };
  } finally {
    document.removeEventListener("htmx:after:request", note);
  }
  return { ok: status === 200, status };
}

export function show(element, text) {
  if (!element) return;
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}
