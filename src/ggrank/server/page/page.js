"use strict";
const $ = (id) => document.getElementById(id);
const KINDS = ["embedding", "rerank"];
const NAMES = { embedding: "cosine", rerank: "cross-encoder" };
const MOST_FILE_BYTES = 16 * 2 ** 20;
const SHOWN_LENGTH = 400;
const NARROW = matchMedia("(max-width: 760px)");

let key = "";            // the API key: in memory only
let models = null;       // what /v1/models says; null before it was asked
let running = null;      // the AbortController of the ranking that is computed now
let shown = {};          // per kind: {results, rows by passage, rank by passage, passages}
let isWhole = false;     // whether long lists are shown to their end
let highlighted = null;
let countdown = 0;

// -- the server

const failure = (status, message, retryAfter = 0) => Object.assign(new Error(message), { status, retryAfter });

async function ask(path, { body, signal } = {}) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { method: body ? "POST" : "GET", headers, signal, cache: "no-store" };
  if (body) options.body = JSON.stringify(body);
  let answer, text;
  try {
    answer = await fetch(path, options);
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw failure(0, `Nothing answers at ${location.origin}. Is “ggrank serve” still running?`);
  }
  const found = parsed(text);
  if (!answer.ok) throw failure(answer.status, found?.message ?? "", Number(answer.headers.get("Retry-After")) || 0);
  if (found === undefined) throw failure(answer.status, "The answer is not JSON: something else is at this address.");
  return found;
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return undefined; }
}

async function loadModels() {
  models = null;
  models = (await ask("v1/models")).data;
  for (const kind of KINDS) showModels(kind);
}

const modelsOf = (kind) => (models ?? []).filter((model) => model.meta.mode === kind);

function chosen(kind) {
  const name = $(kind).querySelector("select")?.value;
  const served = modelsOf(kind);
  return served.find((model) => model.id === name) ?? served[0];
}

function showModels(kind) {
  const column = $(kind);
  const served = modelsOf(kind);
  column.querySelector("select")?.remove();
  if (served.length > 1) {
    const select = document.createElement("select");
    select.setAttribute("aria-label", `Model for ${NAMES[kind]}`);
    select.append(...served.map((model) => new Option(model.id)));
    select.addEventListener("change", () => describeModel(kind, chosen(kind)));
    column.querySelector(".model").before(select);
  }
  describeModel(kind, served[0]);
}

function describeModel(kind, model) {
  const line = $(kind).querySelector(".model");
  if (!model) {
    line.textContent = `The server has no ${kind === "rerank" ? "reranker" : "embedder"}.`;
    return;
  }
  const { engine, device, quantization, n_ctx } = model.meta;
  const facts = [`${engine} on ${device}`, quantization, `reads ${n_ctx.toLocaleString("en")} tokens`];
  if (modelsOf(kind).length < 2) facts.unshift(model.id);
  line.textContent = facts.filter(Boolean).join("\u00a0· ");
}

// -- the passages

function readPassages(text, how) {
  if (how === "auto") {
    const records = readRecords(text);
    if (records) return { passages: records, kind: "records of JSON lines" };
  }
  const isBlocks = how === "blocks" || (how === "auto" && /\S[^\S\n]*\n[^\S\n]*\n\s*\S/.test(text));
  const parts = text.split(isBlocks ? /\n[^\S\n]*\n\s*/ : /\n/);
  const passages = parts.map((part) => part.trim()).filter(Boolean);
  return { passages, kind: isBlocks ? "blocks between blank lines" : "one a line" };
}

// The texts of JSON lines, or null where one line is no record with a text.
function readRecords(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  if (!lines.length || !lines[0].trim().startsWith("{")) return null;
  const texts = lines.map((line) => textOf(parsed(line)));
  return texts.includes(null) ? null : texts;
}

function textOf(record) {
  if (typeof record === "string") return record;
  if (typeof record?.text !== "string") return null;
  return [record.title, record.text].filter((part) => typeof part === "string" && part.trim()).join("\n");
}

const currentPassages = () => readPassages($("passages").value.replace(/\r\n?/g, "\n"), $("split").value);

function showCount() {
  const { passages, kind } = currentPassages();
  const n = passages.length;
  $("count").textContent = n ? `${n.toLocaleString("en")} ${n === 1 ? "passage" : "passages"}: ${kind}` : "No passages yet";
}

async function addFiles(files) {
  const found = [];
  try {
    for (const file of files) found.push(...(await readFile(file)));
  } catch (error) {
    showError("A file cannot be used", error.message);
    return;
  }
  hideError();
  const area = $("passages");
  const before = area.value === area.defaultValue ? [] : currentPassages().passages;
  writePassages([...before, ...found]);
  say(`${found.length} passages added from ${files.length} ${files.length === 1 ? "file" : "files"}.`);
}

async function readFile(file) {
  const suffix = file.name.toLowerCase().match(/\.[^.]*$/)?.[0] ?? "";
  if (![".txt", ".md", ".jsonl", ".ndjson"].includes(suffix))
    throw new Error(`${file.name}: expected a .txt, .md or .jsonl file. Save its text as one of these.`);
  if (file.size > MOST_FILE_BYTES) throw new Error(`${file.name}: more than 16 MiB. Cut it into smaller files.`);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()).replace(/\r\n?/g, "\n");
  } catch {
    throw new Error(`${file.name}: not UTF-8, or it cannot be read. Save the file as UTF-8.`);
  }
  if (!suffix.endsWith("l") && suffix !== ".ndjson") return readPassages(text, suffix === ".md" ? "blocks" : "auto").passages;
  const records = readRecords(text);
  if (!records) throw new Error(`${file.name}: every line must be a JSON object with a "text".`);
  return records;
}

// Passages of several lines need blank lines between them, and may hold none themselves.
function writePassages(passages) {
  const isBlocks = passages.some((passage) => passage.includes("\n"));
  const texts = isBlocks ? passages.map((passage) => passage.replace(/\n\s*\n/g, "\n")) : passages;
  $("passages").value = texts.join(isBlocks ? "\n\n" : "\n");
  $("split").value = passages.length < 2 && isBlocks ? "blocks" : "auto";
  showCount();
}

// -- ranking

async function rank() {
  if (running) return;
  const query = $("query").value.trim();
  const { passages } = currentPassages();
  if (!query || !passages.length) {
    showError("Not yet", query ? "Paste or drop some passages first." : "Type a query first.");
    return $(query ? "passages" : "query").focus();
  }
  hideError();
  running = new AbortController();
  setBusy(true);
  try {
    if (!models?.length) await loadModels();
    await rankBoth(query, passages, running.signal);
  } catch (error) {
    if (!running.signal.aborted) explain(error, rank);
    else say("Stopped.");
    for (const kind of KINDS) if (!shown[kind]) showEmpty(kind);
  } finally {
    running = null;
    setBusy(false);
  }
}

// One after the other: together they would share the processor, and each timing would hold both.
async function rankBoth(query, passages, signal) {
  const kinds = KINDS.filter((kind) => chosen(kind));
  if (!kinds.length) throw failure(503, "The server serves no models yet. Try again in a few seconds.");
  shown = {};
  isWhole = false;
  $("threads").replaceChildren();
  $("hint").hidden = true;
  $("results").classList.toggle("one", kinds.length === 1);
  for (const kind of KINDS) {
    $(kind).hidden = !kinds.includes(kind);
    showEmpty(kind, "Computing …");
  }
  for (const kind of kinds) {
    const started = performance.now();
    const body = { query, documents: passages, model: chosen(kind).id, return_documents: false, raw_scores: true };
    const answer = await ask("rerank", { body, signal });
    take(kind, passages, answer, performance.now() - started);
    if (kind === kinds[0]) bringIntoView();
  }
  connect();
  sayResult(kinds, passages.length);
}

function take(kind, passages, answer, milliseconds) {
  const ranks = new Map(answer.results.map((result, position) => [result.index, position + 1]));
  shown[kind] = { passages, results: answer.results, ranks, rows: new Map(), model: answer.model, milliseconds };
  const nCut = answer.results.filter((result) => result.truncated).length;
  const facts = [`${rounded(milliseconds)} ms`, `${(answer.usage?.total_tokens ?? 0).toLocaleString("en")} tokens`];
  if (nCut) facts.push(`${nCut} cut`);
  const model = modelsOf(kind).find((served) => served.id === answer.model);
  if (model) describeModel(kind, model);
  $(kind).querySelector(".stats").textContent = facts.join(" · ");
  fill(kind);
}

const rounded = (milliseconds) => milliseconds.toLocaleString("en", { maximumFractionDigits: milliseconds < 10 ? 1 : 0 });

// -- the lists

function fill(kind) {
  const { results, passages, rows } = shown[kind];
  const list = element("ol", "card");
  list.setAttribute("role", "list"); // Safari takes it away with the numbers.
  const [high, low] = [results[0], results.at(-1)].map((result) => result.relevance_score);
  const n = isWhole ? results.length : Math.min(results.length, NARROW.matches ? 10 : 50);
  rows.clear();
  for (let position = 0; position < n; position++) {
    const result = results[position];
    const share = high > low ? (result.relevance_score - low) / (high - low) : 1;
    const item = makeRow(kind, result, position + 1, passages[result.index], share);
    rows.set(result.index, item.firstElementChild);
    list.append(item);
  }
  const body = $(kind).querySelector(".body");
  body.replaceChildren(list);
  list.querySelector(".row")?.setAttribute("tabindex", "0");
  if (n < results.length) body.append(moreButton(results.length));
}

function makeRow(kind, result, position, passage, share) {
  const item = $("row").content.firstElementChild.cloneNode(true);
  const row = item.firstElementChild;
  row.dataset.index = result.index;
  row.dataset.kind = kind;
  item.querySelector(".rank").textContent = position;
  item.querySelector(".text").textContent = passage.slice(0, SHOWN_LENGTH);
  item.querySelector(".score").textContent = written(kind, result.relevance_score);
  item.querySelector("i").style.transform = `scaleX(${Math.max(share, 0.012)})`;
  if (result.truncated) {
    const cut = element("span", "cut", "cut");
    const read = modelsOf(kind).find((model) => model.id === shown[kind].model)?.meta.n_ctx;
    cut.title = `Longer than the model reads${read ? ` (${read} tokens)` : ""}: only its beginning was scored`;
    item.querySelector(".words").append(cut);
  }
  return item;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

const written = (kind, score) => score.toFixed(kind === "rerank" ? 2 : 3).replace("-", "−");

function moreButton(n) {
  const button = element("button", "more", `Show all ${n.toLocaleString("en")}`);
  button.type = "button";
  button.addEventListener("click", () => {
    const kind = button.closest(".column").id;
    const position = shown[kind].rows.size;
    isWhole = true;
    for (const each of KINDS) if (shown[each]) fill(each);
    connect();
    focusRow($(kind).querySelectorAll(".row")[position]);
  });
  return button;
}

function showEmpty(kind, text = `Press Rank to see the order by ${NAMES[kind]}.`) {
  $(kind).querySelector(".stats").textContent = "";
  $(kind).querySelector(".body").replaceChildren(element("p", "empty", text));
}

// -- what moved

function connect() {
  $("hint").hidden = false;
  if (!shown.embedding || !shown.rerank) return;
  for (const [index, row] of shown.rerank.rows) {
    const figures = row.querySelector(".figures");
    const { mark, words, direction } = moveOf(index);
    const move = element("span", `move ${direction}`);
    const visible = element("span", "", mark);
    visible.setAttribute("aria-hidden", "true");
    move.append(visible, element("span", "unseen", `, ${words}`));
    figures.append(move);
  }
  drawThreads();
}

function moveOf(index) {
  const before = shown.embedding.ranks.get(index);
  const by = before - shown.rerank.ranks.get(index);
  if (!by) return { mark: "=", words: "same place", direction: "same" };
  if (by > 0) return { mark: `↑ ${by}`, words: `up ${by} from place ${before}`, direction: "up" };
  return { mark: `↓ ${-by}`, words: `down ${-by} from place ${before}`, direction: "down" };
}

function drawThreads() {
  const svg = $("threads");
  if (!shown.embedding || !shown.rerank || NARROW.matches) return;
  const { top, width } = svg.getBoundingClientRect();
  const middles = KINDS.map((kind) => new Map([...shown[kind].rows].map(([index, row]) => [index, middleOf(row) - top])));
  const paths = [];
  for (const [index, from] of middles[0]) {
    const to = middles[1].get(index);
    if (to === undefined) continue;
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M4 ${from}C${width / 2} ${from} ${width / 2} ${to} ${width - 4} ${to}`);
    path.setAttribute("class", moveOf(index).direction);
    path.dataset.index = index;
    paths.push(path);
  }
  svg.replaceChildren(...paths.reverse());
  $("results").classList.toggle("many", paths.length > 20);
  highlight(highlighted);
}

// A passage that is opened grows downwards; its thread stays where it was.
function middleOf(row) {
  const { top, height } = row.getBoundingClientRect();
  return top + Math.min(height, 86) / 2;
}

// -- looking at one passage in both lists

function highlight(index) {
  for (const each of document.querySelectorAll(".on")) each.classList.remove("on");
  highlighted = index;
  if (index === null) return;
  for (const kind of KINDS) shown[kind]?.rows.get(index)?.classList.add("on");
  const path = document.querySelector(`#threads [data-index="${index}"]`);
  path?.classList.add("on");
  path?.parentNode.append(path);
}

const rowOf = (event) => event.target.closest?.(".row");

function toggle(row) {
  const isOpen = row.getAttribute("aria-expanded") !== "true";
  const index = Number(row.dataset.index);
  const passage = shown[row.dataset.kind].passages[index];
  row.setAttribute("aria-expanded", isOpen);
  row.querySelector(".text").textContent = isOpen ? passage : passage.slice(0, SHOWN_LENGTH);
  row.querySelector(".both")?.remove();
  if (isOpen) row.querySelector(".words").append(element("span", "both", placesOf(index)));
}

function placesOf(index) {
  const parts = KINDS.filter((kind) => shown[kind]).map((kind) => {
    const place = shown[kind].ranks.get(index);
    return `${NAMES[kind]}: place ${place}, ${written(kind, shown[kind].results[place - 1].relevance_score)}`;
  });
  return `Passage ${index + 1}. ${parts.join("; ")}`;
}

function focusRow(row) {
  if (!row) return;
  for (const other of row.closest("ol").querySelectorAll('[tabindex="0"]')) other.setAttribute("tabindex", "-1");
  row.setAttribute("tabindex", "0");
  row.focus();
}

function onRowKey(event) {
  const row = rowOf(event);
  if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
  const item = row.parentNode;
  const other = row.dataset.kind === "rerank" ? "embedding" : "rerank";
  const targets = {
    ArrowDown: () => item.nextElementSibling?.firstElementChild,
    ArrowUp: () => item.previousElementSibling?.firstElementChild,
    Home: () => item.parentNode.firstElementChild.firstElementChild,
    End: () => item.parentNode.lastElementChild.firstElementChild,
    ArrowRight: () => other === "rerank" && shown.rerank?.rows.get(Number(row.dataset.index)),
    ArrowLeft: () => other === "embedding" && shown.embedding?.rows.get(Number(row.dataset.index)),
  };
  if (event.key === "Enter" || event.key === " ") toggle(row);
  else if (targets[event.key]) focusRow(targets[event.key]());
  else return;
  event.preventDefault();
}

// -- telling

function say(text) { $("said").textContent = text; }

function sayResult(kinds, n) {
  const times = kinds.map((kind) => `${NAMES[kind]} ${rounded(shown[kind].milliseconds)} ms`).join(", ");
  const movers = kinds.length < 2 ? [] : shown.rerank.results.filter(({ index }) => moveOf(index).direction !== "same");
  const moved = kinds.length < 2 ? "" : ` ${movers.length} moved.`;
  say(`${n} ${n === 1 ? "passage" : "passages"} ranked: ${times}.${moved}`);
}

const TITLES = {
  0: "The server does not answer", 413: "That is more than the server takes at once", 429: "The server is busy",
  503: "The server is not ready",
};

function explain(error, retry) {
  if (error.status === undefined) throw error;
  if (error.status === 401 || error.status === 403) return askForKey(retry);
  const title = TITLES[error.status] ?? (error.status < 500 ? "The server refused the request" : `The server failed (${error.status})`);
  showError(title, error.message || `It answered ${error.status} without a message.`);
  if (error.status === 0 || error.status === 429 || error.status >= 500) $("error").append(againButton(retry, error.retryAfter));
}

// Who comes without a key has done nothing wrong: only a key that is refused is told as an error.
function askForKey(retry) {
  if (key) showError("The key was not accepted", "Check it and enter it again.");
  else showError("This server asks for an API key", "Enter it to begin. Whoever started the server has it.");
  const box = $("error");
  if (!key) {
    box.classList.add("asking");
    box.removeAttribute("role");
  }
  box.append(keyForm(retry));
  box.querySelector("input").focus();
}

function showError(title, message) {
  clearInterval(countdown);
  const box = $("error");
  box.setAttribute("role", "alert");
  box.replaceChildren(element("h2", "", title), element("p", "", message));
  box.hidden = false;
  box.classList.remove("asking");
  box.scrollIntoView({ block: "nearest" });
}

function hideError() {
  clearInterval(countdown);
  $("error").hidden = true;
  $("error").replaceChildren();
}

function keyForm(retry) {
  const form = $("ask-key").content.firstElementChild.cloneNode(true);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key = form.querySelector("input").value.trim();
    hideError();
    retry();
  });
  return form;
}

function againButton(retry, seconds) {
  const button = element("button", "again", "Try again");
  button.type = "button";
  button.addEventListener("click", () => { hideError(); retry(); });
  let left = Math.ceil(seconds);
  const tick = () => {
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left-- <= 0) clearInterval(countdown);
  };
  clearInterval(countdown);
  countdown = setInterval(tick, 1000);
  tick();
  return button;
}

function setBusy(isBusy) {
  $("composer").classList.toggle("busy", isBusy);
  $("results").setAttribute("aria-busy", isBusy);
  $("rank").firstElementChild.textContent = isBusy ? "Stop" : "Rank";
}

function bringIntoView() {
  const results = $("results");
  if (results.getBoundingClientRect().top < innerHeight * 0.7) return;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  results.scrollIntoView({ block: "start", behavior: isCalm ? "auto" : "smooth" });
}

// -- what people do

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running && event.submitter === $("rank")) running.abort();
  else rank();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    rank();
  } else onRowKey(event);
});
$("results").addEventListener("click", (event) => {
  const row = rowOf(event);
  if (!row || String(getSelection())) return;
  focusRow(row);
  toggle(row);
});
for (const type of ["mouseover", "focusin"])
  $("results").addEventListener(type, (event) => highlight(rowOf(event) ? Number(rowOf(event).dataset.index) : null));
$("results").addEventListener("mouseleave", () => highlight(null));

for (const id of ["passages", "split"]) $(id).addEventListener("input", showCount);
$("example").addEventListener("click", () => {
  for (const id of ["query", "passages"]) $(id).value = $(id).defaultValue;
  $("split").value = "auto";
  showCount();
});
$("clear").addEventListener("click", () => {
  for (const id of ["query", "passages"]) $(id).value = "";
  showCount();
  $("query").focus();
});
$("files").addEventListener("change", async () => {
  await addFiles([...$("files").files]);
  $("files").value = "";
});
addEventListener("dragover", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!event.dataTransfer?.files.length) return;
  event.preventDefault();
  addFiles([...event.dataTransfer.files]);
});
new ResizeObserver(drawThreads).observe($("results"));

if (/Mac|iPhone|iPad/.test(navigator.platform)) $("rank").querySelector("kbd").textContent = "⌘ ↵";
showCount();
const start = () => loadModels().catch((error) => explain(error, start));
start();
