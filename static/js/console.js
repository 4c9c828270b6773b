// The presenter's console. Every control is a plain form; this adds the clock, and a clicker's keys.

import "./live.js";

const NEXT_KEYS = new Set(["PageDown", "ArrowRight"]);

document.addEventListener("keydown", (event) => {
  if (!NEXT_KEYS.has(event.key) || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [tabindex='0'], summary")) return;
  const primary = document.querySelector(".action-primary button");
  if (!primary) return;
  event.preventDefault();
  primary.click();
});

// What was refused is said until the next action.
document.addEventListener("htmx:before:request", (event) => {
  if (event.target.closest?.("#screen form")) document.querySelector("#refused").replaceChildren();
});

// The running order keeps the current activity in view.
let current = "";
document.addEventListener("htmx:after:swap", () => {
  const row = document.querySelector(".order-row.is-current");
  if (row && row.id !== current) row.scrollIntoView({ block: "nearest" });
  current = row?.id ?? "";
});

// When the button just pressed is gone, the keyboard goes on from the head of its panel, never from another button. The
// panel also comes by itself each second, before or after the answer to the press; what the person does next ends it.
let pressedIn = null;
for (const next of ["keydown", "pointerdown"]) document.addEventListener(next, () => (pressedIn = null), true);
document.addEventListener("htmx:before:request", (event) => {
  if (event.target.closest?.("#spike form")) pressedIn = "#spike-title";
});
document.addEventListener("htmx:after:swap", () => {
  if (pressedIn && document.activeElement === document.body) document.querySelector(pressedIn)?.focus();
});
