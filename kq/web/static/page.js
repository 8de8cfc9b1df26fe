// What the pages do beyond links and forms, all of which work without this.
"use strict";

// A page that nobody sees is not asked for, nor one in which somebody ticks, types or has opened something: what comes
// would be put over it.
function busy() {
  const live = document.getElementById("live");
  return (
    document.hidden ||
    live.querySelector("details[open], input:checked") !== null ||
    (document.activeElement !== null && live.contains(document.activeElement) && document.activeElement.matches("input, textarea, select"))
  );
}

function stale(why) {
  const told = document.getElementById("stale");
  if (why && told.hidden) {
    told.textContent = why + " What is shown is of " + new Date().toISOString().slice(11, 19) + " UTC.";
  }
  told.hidden = !why;
}

document.addEventListener("htmx:before:request", (event) => {
  if (busy()) event.preventDefault();
});

// Only a page of ours is put into a page: nothing else that an address may lead to.
function isFragment(headers) {
  return headers.get("kq-fragment") === "1" && /^text\/html(;|$)/.test(headers.get("content-type") ?? "");
}

document.addEventListener("htmx:before:response", (event) => {
  const { status, headers } = event.detail.ctx.response;
  if (status === 401) {
    location.reload();
  } else if (status === 404) {
    stale("It is not there any more.");
  } else if (status >= 400) {
    stale("The page gets no answer from the broker.");
  } else {
    stale(isFragment(headers) ? "" : "The page gets an answer that is not its own.");
  }
  if (status >= 400 || !isFragment(headers) || busy()) event.preventDefault();
});

document.addEventListener("htmx:error", () => stale("The page gets no answer from its server."));

document.addEventListener("visibilitychange", () => {
  const live = document.getElementById("live");
  if (!document.hidden && live.hasAttribute("hx-get")) live.dispatchEvent(new Event("poll"));
});

// One tick for all that are shown; without this script it is not there.
function offerAll() {
  const all = document.getElementById("all");
  if (all) all.hidden = false;
}

document.addEventListener("change", (event) => {
  const boxes = document.querySelectorAll("input[name=ids]");
  if (event.target.id === "all") for (const box of boxes) box.checked = event.target.checked;
});

document.addEventListener("DOMContentLoaded", offerAll);
document.addEventListener("htmx:after:swap", offerAll);

// What a form says beyond its command line, which is what it would say by itself: a reason, what is ticked.
function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\"'\"'") + "'";
}

function said(field) {
  const option = " " + field.dataset.option;
  if (field.type === "checkbox") return field.checked ? option : "";
  return field.value && field.value !== field.defaultValue ? option + " " + quoted(field.value) : "";
}

document.addEventListener("input", (event) => {
  const line = event.target.dataset.option && event.target.form.querySelector("code.line");
  if (!line) return;
  line.dataset.bare ??= line.textContent;
  line.textContent = line.dataset.bare + [...event.target.form.querySelectorAll("[data-option]")].map(said).join("");
});
