// Figures as the stage writes them.

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 10) return `${value.toFixed(value < 1 ? 2 : 1)} s`;
  return `${Math.round(value)} s`;
}

/** A time since something: `45 s`, `3:07`, `1:02 h`. */
export function age(value) {
  if (value < 60) return `${value} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes}:${String(value % 60).padStart(2, "0")}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")} h`;
}

export function usd(value) {
  if (value === null || value === undefined) return "–";
  return `$${value.toFixed(value < 100 ? 2 : 0)}`;
}

export function count(value) {
  if (value === null || value === undefined) return "–";
  return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
}

export function plural(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

/** Changes the page only where it differs. */
export function write(element, text) {
  if (!element || element.textContent === text) return;
  if (element.firstChild) element.firstChild.data = text;
  else element.textContent = text;
}

export function put(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}
