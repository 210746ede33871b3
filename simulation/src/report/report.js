"use strict";
const canvas = document.getElementById("canvas");
const scroll = canvas.parentElement;
const cursor = document.getElementById("cursor");
const story = document.getElementById("story");
const filter = document.getElementById("filter");
const rows = Array.from(story.rows);
const end = Math.max(1, Number(document.body.dataset.end) || Number(rows.length ? rows[rows.length - 1].dataset.at : 1));

// As many labels of seconds as there is room for.
const seconds = Array.from(document.querySelectorAll(".seconds > span"));
function label() {
  const room = canvas.clientWidth / Math.max(1, end / 1e9);
  const step = [1, 2, 5, 10, 20, 30, 60, 120, 300].find((step) => step * room >= 48) || 600;
  seconds.forEach((span, second) => { span.hidden = second % step !== 0; });
}

// Zooming keeps the middle where it is.
document.getElementById("zoom").addEventListener("input", (event) => {
  const middle = (scroll.scrollLeft + scroll.clientWidth / 2) / canvas.clientWidth;
  canvas.style.setProperty("--zoom", event.target.value);
  scroll.scrollLeft = middle * canvas.clientWidth - scroll.clientWidth / 2;
  label();
});
window.addEventListener("resize", label);
label();

function pointAt(at) {
  cursor.hidden = false;
  cursor.style.left = (at / end) * 100 + "%";
}

// From the timeline to the story: the first line that is shown and not earlier.
function readAt(at) {
  const row = rows.find((row) => Number(row.dataset.at) >= at && row.offsetParent !== null);
  rows.forEach((other) => other.classList.toggle("here", other === row));
  if (row) row.scrollIntoView({ block: "center" });
}

document.addEventListener("click", (event) => {
  const found = event.target.closest("[data-at]");
  if (!found || found === document.body) return;
  const at = Number(found.dataset.at);
  pointAt(at);
  if (found.tagName === "A") {
    event.preventDefault();
    canvas.scrollIntoView({ block: "center" });
  } else if (found.tagName === "SPAN") {
    readAt(at);
  } else {
    rows.forEach((other) => other.classList.toggle("here", other === found));
  }
});

function select() {
  const words = filter.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const other = words.length > 0 && !words.some((word) => text.includes(word));
    row.classList.toggle("other", other);
    shown += !other && !(story.classList.contains("brief") && row.classList.contains("usual"));
  }
  document.getElementById("shown").textContent = shown + " of " + rows.length + " lines";
}

filter.addEventListener("input", select);
document.getElementById("usual").addEventListener("change", (event) => {
  story.classList.toggle("brief", !event.target.checked);
  select();
});
select();
