"use strict";
const $ = (id) => document.getElementById(id);
const DIGITS = { embedding: 3, rerank: 2 }; // of a score, by the mode of the model
const KINDS = Object.keys(DIGITS);
let key = ""; // the API key: in memory only
let moves = []; // of each passage: its row in both lists, its first place, how many places it rose

// -- the server

async function ask(path, body) {
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const options = { method: body ? "POST" : "GET", body: JSON.stringify(body), headers, cache: "no-store" };
  const response = await fetch(path, options).catch(() => {
    throw new Error(`Nothing answers at ${location.origin}. Is “ggrank serve” still running?`);
  });
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  $("ask-key").hidden = response.status !== 401;
  if (response.status === 401) throw new Error(key && "The key was not accepted. Check it and enter it again.");
  throw new Error(answer?.message ?? "The answer is not JSON: something else is at this address.");
}

// Does one task at a time, and shows what went wrong in it.
async function attempt(task) {
  if (document.body.ariaBusy === "true") return;
  document.body.ariaBusy = "true";
  $("error").hidden = $("ask-key").hidden = true;
  try {
    await task();
  } catch (error) {
    showError(error.message);
  }
  document.body.ariaBusy = "false";
}

function showError(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
  $("error").scrollIntoView({ block: "nearest" });
  if (!$("ask-key").hidden) $("key").focus();
}

async function loadModels() {
  const { data } = await ask("v1/models");
  for (const kind of KINDS) {
    const served = data.filter(({ meta }) => meta.mode === kind);
    const options = served.map(({ id, meta }) => {
      const facts = [id, `${meta.engine} on ${meta.device}`, meta.quantization, `reads ${meta.n_ctx} tokens`];
      return new Option(facts.filter(Boolean).join(" · "), id);
    });
    $(kind).querySelector("select").replaceChildren(...options);
    $(kind).hidden = !served.length;
  }
}

// -- ranking

const counted = (n) => `${n.toLocaleString("en")} ${n === 1 ? "passage" : "passages"}`;

function readPassages() {
  const text = $("passages").value.trim();
  const separator = /\n\s*\n/.test(text) ? /\n\s*\n/ : "\n";
  const format = separator === "\n" ? "one a line" : "blocks between blank lines";
  const passages = text.split(separator).map((passage) => passage.trim()).filter(Boolean);
  $("count").textContent = passages.length ? `${counted(passages.length)}: ${format}` : "No passages yet";
  $("passages").setCustomValidity(passages.length ? "" : "Paste some passages first.");
  $("query").setCustomValidity($("query").value.trim() ? "" : "Type a query first.");
  return passages;
}

// One model after the other: together they would share the processor, and each time would hold both.
async function rank() {
  const documents = readPassages();
  const modelOf = (kind) => $(kind).querySelector("select").value;
  moves = [];
  for (const each of document.querySelectorAll("#results .body, .stats, #threads")) each.replaceChildren();
  if (!KINDS.some(modelOf)) await loadModels();
  for (const kind of KINDS.filter(modelOf)) {
    const started = performance.now();
    const options = { model: modelOf(kind), return_documents: false, raw_scores: true };
    const { results, usage } = await ask("rerank", { query: $("query").value, documents, ...options });
    const stats = `${Math.round(performance.now() - started)} ms · ${usage.total_tokens.toLocaleString("en")} tokens`;
    $(kind).querySelector(".stats").textContent = stats;
    showRanking(kind, results, documents);
  }
  if (KINDS.every(modelOf)) showMoves();
  $("said").textContent = `${counted(documents.length)} ranked.`;
}

function showRanking(kind, results, documents) {
  const [high, low] = [results[0], results.at(-1)].map((result) => result.relevance_score);
  const rows = results.map(({ index, relevance_score: score, truncated }, place) => {
    const share = high > low ? (score - low) / (high - low) : 1;
    const row = makeRow(place + 1, documents[index], score.toFixed(DIGITS[kind]).replace("-", "−"), share);
    row.dataset.index = index;
    if (truncated) row.querySelector(".figures").append(element("span", "cut", "cut"));
    return row;
  });
  $(kind).querySelector(".body").append(listOf(rows));
}

function makeRow(rank, text, score, share) {
  const row = $("row").content.firstElementChild.cloneNode(true);
  for (const [name, value] of Object.entries({ rank, text, score })) row.querySelector(`.${name}`).textContent = value;
  row.querySelector("i").style.width = `${Math.max(100 * share, 1)}%`;
  return row;
}

function listOf(rows) {
  const list = element("ol", "card");
  list.append(...rows);
  return list;
}

function element(name, className, textContent = "") {
  return Object.assign(document.createElement(name), { className, textContent });
}

function showMoves() {
  const [first, second] = KINDS.map((kind) => [...$(kind).querySelectorAll(".row")]);
  const places = new Map(first.map((row, place) => [row.dataset.index, place]));
  moves = second.map((after, place) => {
    const from = places.get(after.dataset.index);
    return { before: first[from], after, from: from + 1, rise: from - place };
  });
  for (const { after, from, rise } of moves) {
    const mark = element("span", `move ${directionOf(rise)}`, rise ? `${rise > 0 ? "↑" : "↓"} ${Math.abs(rise)}` : "=");
    mark.role = "img";
    mark.ariaLabel = rise ? `${directionOf(rise)} ${Math.abs(rise)} from place ${from}` : "same place";
    after.querySelector(".figures").append(mark);
  }
  drawThreads();
}

const directionOf = (rise) => (rise > 0 ? "up" : rise < 0 ? "down" : "same");

function drawThreads() {
  const { top, width } = $("threads").getBoundingClientRect();
  const paths = moves.map(({ before, after, rise }) => {
    // A passage that is opened grows downwards; its thread stays where it was.
    const [from, to] = [before, after].map((row) => row.getBoundingClientRect().top - top + 43);
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M4 ${from}C${width / 2} ${from} ${width / 2} ${to} ${width - 4} ${to}`);
    path.setAttribute("class", `${directionOf(rise)} ${after.classList.contains("on") ? "on" : ""}`);
    path.dataset.index = after.dataset.index;
    return path;
  });
  $("threads").replaceChildren(...paths);
}

function highlight(event) {
  const index = event.target.closest(".row")?.dataset.index;
  for (const each of $("results").querySelectorAll("[data-index]"))
    each.classList.toggle("on", each.dataset.index === index);
}

// -- searching

async function search() {
  const { hits } = await ask("search", { query: $("search-query").value });
  const rows = hits.map((hit, place) => {
    const row = makeRow(place + 1, hit.text, hit.score.toFixed(3), hit.score);
    row.querySelector(".words").prepend(element("span", "place", hit.place), element("span", "soft", hit.headings));
    return row;
  });
  $("hits").replaceChildren(hits.length ? listOf(rows) : element("p", "soft", "Nothing found."));
  $("said").textContent = `${counted(hits.length)} found.`;
}

// -- what people do

for (const [id, task] of Object.entries({ composer: rank, search, "ask-key": loadModels })) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    if (id === "ask-key") key = $("key").value.trim();
    attempt(task);
  });
}
$("composer").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("composer").requestSubmit();
});
$("composer").addEventListener("input", readPassages);
$("composer").addEventListener("reset", () => setTimeout(readPassages));
$("clear").addEventListener("click", () => {
  $("query").value = $("passages").value = "";
  readPassages();
  $("query").focus();
});
for (const type of ["mouseover", "focusin", "mouseleave"]) $("results").addEventListener(type, highlight);
new ResizeObserver(drawThreads).observe($("results"));
readPassages();
attempt(loadModels);
