// The page: a query, a person, and columns side by side that show personalisation grow (UEPPR, Figure 1).

import { PLACE, columns, empty, fromAddress, hasHistory, hasPlace, movement, setPlace, toAddress } from "./state.js";
import { chips, column, element } from "./view.js";

const SHOWN = 12; // products a column, until more are wanted
const COMPARED = 60; // products asked for: "new" means not among so many of the column to the left
const $ = (id) => document.getElementById(id);

let state = empty();
let about = null;
let results = [];
let shown = SHOWN;
let asking = null;

class Problem extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem("token");
  if (token) headers.authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server does not answer.");
  }
  if (response.ok) return response.json();
  const body = await response.json().catch(() => ({}));
  options.signal?.throwIfAborted();
  throw new Problem(response.status, body.detail ?? `The server answers ${response.status}.`);
}

const post = (path, body, signal) => ask(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
});

// Problems

function say(problem) {
  const isLocked = problem?.status === 401;
  $("problem").hidden = !problem || isLocked;
  $("problem").textContent = problem?.message ?? "";
  $("unlock").hidden = !isLocked;
  if (isLocked) $("token").focus();
  if (problem) document.documentElement.dataset.state = "problem";
}

// Search

function go() {
  history.pushState(null, "", toAddress(state));
  return search();
}

// Shows the state. What is begun ends what was under way: an answer that comes too late changes nothing.
async function search() {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  shown = SHOWN;
  $("query").value = state.query;
  showPerson();
  document.documentElement.dataset.state = "searching";
  $("columns").setAttribute("aria-busy", "true");
  try {
    if (!about) await learn(signal);
    const problem = state.isComplete ? null : await complete(signal);
    showPerson();
    await (state.query.trim() ? compare(signal) : welcome(signal));
    say(problem);
  } catch (error) {
    if (signal.aborted) return;
    clear();
    say(error);
  } finally {
    if (!signal.aborted) $("columns").removeAttribute("aria-busy");
  }
}

async function compare(signal) {
  const wanted = columns(state, about, Math.min(COMPARED, about.max_results));
  const answers = await Promise.all(wanted.map((one) => (one.why ? null : post("/search", one.body, signal))));
  let left = null;
  results = wanted.map((one, place) => {
    const answer = answers[place];
    if (!answer) return { ...one, hits: [] };
    const changes = left && movement(answer.hits, left.hits);
    left = answer;
    return { ...one, ...answer, changes };
  });
  render();
  document.documentElement.dataset.state = "done";
}

function render() {
  const known = { country: state.place.country, shops: new Set(state.shops) };
  const actions = about.uses_histories ? { clicked, bought } : {};
  if (about.examples.length) actions.somebody = somebody;
  const focused = document.activeElement?.closest?.(".card")?.dataset.product;
  const within = document.activeElement?.closest?.(".column")?.id;
  const left = $("columns").scrollLeft;
  $("columns").classList.remove("welcome");
  $("columns").replaceChildren(...results.map((one) => column({ ...one, shown }, known, actions)));
  const longest = Math.max(0, ...results.map((one) => one.hits.length));
  $("more").hidden = shown >= longest;
  $("columns").scrollLeft = left;
  $("tabs").hidden = false;
  $("tabs").replaceChildren(...results.map((one) => element("a", { href: `#${one.id}`, onclick: showColumn }, one.title)));
  if (focused && within) [...$(within).querySelectorAll(".card")].find((card) => card.dataset.product === focused)?.focus();
  const said = results.filter((one) => !one.why).map((one) => `${one.title}: ${Math.min(shown, one.hits.length)} products`);
  $("status").textContent = said.join("; ");
  document.title = `${state.query} – uepp`;
}

function showColumn(event) {
  event.preventDefault();
  const one = $(event.target.getAttribute("href").slice(1));
  $("columns").scrollTo({ left: one.offsetLeft - $(results[0].id).offsetLeft, behavior: "smooth" });
}

function clear() {
  results = [];
  for (const id of ["tabs", "more"]) $(id).hidden = true;
  $("columns").replaceChildren();
}

async function welcome(signal) {
  const queries = await ask("/suggest?kind=query&limit=8", { signal }).catch(() => []);
  signal.throwIfAborted();
  clear();
  $("columns").classList.add("welcome");
  $("columns").append(element(
    "p", { class: "why" }, queries.length ? "Much asked: " : "",
    ...queries.map(({ query }) => element("button", { type: "button", class: "offer", onclick: () => type(query) }, query)),
  ));
  document.title = "uepp";
  document.documentElement.dataset.state = "idle";
}

function type(query) {
  state.query = query;
  $("query").value = query;
  return go();
}

// The person

function changed() { // whoever is edited is nobody we know any more
  state.person = "";
  return go();
}

const first = (list, entry, same) => [entry, ...list.filter((other) => !same(other))].slice(0, 100);

function addTo(part, entry) {
  const key = (one) => one.product_id ?? one;
  state[part] = first(state[part], entry, (other) => key(other) === key(entry));
}

function clicked(hit) {
  addTo("clicked", hit);
  if (hit.shop_id) addTo("shops", hit.shop_id);
  return changed();
}

function bought(hit) {
  addTo("bought", hit);
  return changed();
}

function placed() { // an address with a person and no place stands for the place that is known of them
  return hasPlace(state) ? go() : changed();
}

function choose(user) {
  state = { ...state, person: user, place: {}, searches: [], shops: [], clicked: [], bought: [], isComplete: !user };
  return go();
}

// What an address need not hold: what somebody did and where they were, and the titles of products. Returns the
// problem where nothing is known of the person; query and place stay.
async function complete(signal) {
  let problem = null;
  if (state.person) {
    try {
      const person = await ask(`/person?${new URLSearchParams({ user: state.person, limit: 50 })}`, { signal });
      Object.assign(state, {
        place: hasPlace(state) ? state.place : person.place,
        searches: person.recent_searches, shops: person.recent_shops,
        clicked: person.clicked_products, bought: person.purchased_products,
      });
      history.replaceState(null, "", toAddress(state));
    } catch (error) {
      if (error.status !== 422) throw error;
      state.person = "";
      problem = error;
    }
  }
  const ids = [...state.clicked, ...state.bought].map((product) => product.product_id);
  if (!state.person && ids.length) {
    const parts = new URLSearchParams(ids.slice(0, 100).map((product_id) => ["id", product_id]));
    const products = new Map((await ask(`/products?${parts}`, { signal })).map((product) => [product.product_id, product]));
    for (const part of ["clicked", "bought"]) state[part] = state[part].map((one) => products.get(one.product_id) ?? one);
  }
  state.isComplete = true;
  return problem;
}

function somebody() {
  const others = about.examples.filter((one) => one.user !== state.person);
  const among = others.length ? others : about.examples;
  return choose(among[Math.floor(Math.random() * among.length)].user);
}

function showPerson() {
  for (const name of ["boosted", "fusion", "rerank", "prune"]) $(name).checked = state[name];
  const select = $("person");
  select.querySelector("[data-other]")?.remove();
  if (state.person && ![...select.options].some((option) => option.value === state.person)) {
    select.append(element("option", { value: state.person, "data-other": true }, state.person));
  }
  if (!state.person && (hasHistory(state) || hasPlace(state))) {
    select.append(element("option", { value: "·", "data-other": true }, "Somebody, as below"));
    select.value = "·";
  } else select.value = state.person;
  $("place").value = ["country", "region", "zip"].map((name) => state.place[name]).filter(Boolean).join(" ");
  for (const name of PLACE) $(`place-${name}`).value = state.place[name] ?? "";
  for (const part of ["searches", "shops", "clicked", "bought"]) {
    chips($(part), state[part], (place) => { state[part] = state[part].filter((_, other) => other !== place); changed(); });
  }
  const counts = [
    [state.searches.length, "searches"], [state.clicked.length, "clicks"], [state.shops.length, "shops"], [state.bought.length, "purchases"],
  ].filter(([count]) => count).map(([count, name]) => `${count} ${name}`);
  $("forget").hidden = !state.person && !hasPlace(state) && !hasHistory(state);
  $("who-summary").textContent = [state.person || (hasPlace(state) || hasHistory(state) ? "" : "nobody in particular"), $("place").value, ...counts]
    .filter(Boolean).join(" · ");
}

// Suggestions while somebody types. One that is chosen is taken at once; what is typed, which may be the beginning of
// more, with Enter: as a suggestion where it is one, else by `takeTyped`.

function suggests(input, kind, take, takeTyped) {
  const list = $(input.getAttribute("list"));
  let offered = new Map();
  let latest = 0;
  let timer;
  const accept = (taken, how) => { input.value = ""; how(taken); };
  input.addEventListener("input", (event) => {
    // A choice is a replacement in Firefox and has no type in Chromium and Safari.
    const isChoice = !event.inputType || event.inputType === "insertReplacementText";
    const chosen = offered.get(input.value);
    if (chosen && take && isChoice) {
      accept(chosen, take);
      return;
    }
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const mine = ++latest;
      const found = await ask(`/suggest?${new URLSearchParams({ kind, part: input.value, limit: 12 })}`).catch(() => []);
      if (mine !== latest) return;
      const name = (one) => (kind === "product" ? `${one.label} (${one.product.product_id})` : one.label);
      offered = new Map(found.map((one) => [name(one), one]));
      list.replaceChildren(...[...offered.keys()].map((value) => element("option", { value })));
    }, 100);
  });
  input.addEventListener("keydown", (event) => {
    if (!take || event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    const chosen = offered.get(input.value);
    const typed = input.value.trim();
    if (chosen) accept(chosen, take);
    else if (takeTyped && typed) accept(typed, takeTyped);
  });
  input.addEventListener("focus", () => input.dispatchEvent(new Event("input")), { once: true });
  return () => { // no more offers for what is typed now
    clearTimeout(timer);
    latest += 1;
    list.replaceChildren();
  };
}

function adds(id, kind, entry) {
  const take = (text) => { addTo(id, text); changed(); };
  suggests($(`${id}-input`), kind, (one) => take(entry(one)), kind === "product" ? null : take);
}

// Keys

function move(card, key) {
  const all = [...document.querySelectorAll("#columns .column")];
  const at = all.findIndex((one) => one.contains(card));
  const cards = [...all[at].querySelectorAll(".card")];
  const place = cards.indexOf(card);
  if (key === "ArrowUp" && place === 0) return $("query");
  if (key === "ArrowUp" || key === "ArrowDown") return cards[place + (key === "ArrowUp" ? -1 : 1)];
  if (key === "Home" || key === "End") return cards.at(key === "Home" ? 0 : -1);
  const step = key === "ArrowLeft" ? -1 : 1;
  for (let other = at + step; all[other]; other += step) {
    const there = [...all[other].querySelectorAll(".card")];
    if (there.length) return there[Math.min(place, there.length - 1)];
  }
  return null;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  const card = target.closest?.(".card");
  const isTyping = target.matches?.("input:not([type=checkbox]), select, textarea");
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    $("query").focus();
    $("query").select();
  } else if (event.key === "Escape") {
    if (isTyping && target.value && target.tagName === "INPUT") target.value = "";
    else if (target === $("query")) target.blur();
    else $("query").focus();
  } else if (target === $("query") && event.key === "ArrowDown" && !$("query-list").children.length) {
    event.preventDefault();
    document.querySelector("#columns .card")?.focus();
  } else if (card && ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) {
    event.preventDefault();
    move(card, event.key)?.focus();
  } else if (card && about.uses_histories && (event.key === "c" || event.key === "b")) {
    const hit = results.flatMap((one) => one.hits).find((one) => one.product_id === card.dataset.product);
    (event.key === "c" ? clicked : bought)(hit);
  }
}

// The same product in the other columns

function point(event) {
  const product = event.target.closest?.(".card")?.dataset.product;
  for (const card of document.querySelectorAll("#columns .card")) {
    card.classList.toggle("same", product !== undefined && card.dataset.product === product);
  }
}

// Start

async function learn(signal) {
  const found = await ask("/about", { signal });
  // A ranker reads both, whatever the query tower does.
  found.uses_places = found.reads_places || found.has_ranker;
  found.uses_histories = found.reads_histories || found.has_ranker;
  found.examples = found.uses_histories ? await ask("/people?limit=24", { signal }) : [];
  about = found;
  $("about").textContent = `${about.num_products.toLocaleString("en")} products, run ${about.run_id.slice(0, 8)}`;
  $("boosted-label").hidden = !about.has_boosting;
  $("fusion-label").hidden = !about.has_fusion;
  $("rerank-label").hidden = !about.has_ranker;
  $("prune-label").hidden = about.threshold === null;
  $("prune-text").textContent = `At least ${about.threshold} similar`;
  for (const part of ["searches", "clicked", "shops", "bought"]) $(`${part}-control`).hidden = !about.uses_histories;
  $("place-control").hidden = !about.uses_places;
  $("person").parentElement.hidden = !about.examples.length;
  $("who").hidden = !about.uses_places && !about.uses_histories;
  $("person").append(...about.examples.map((one) => element(
    "option", { value: one.user }, `${one.user}: ${one.searches} searches, ${one.clicks} clicks, ${one.purchases} purchases`,
  )));
}

function open() {
  state = fromAddress(location.search);
  return search();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  state.query = $("query").value;
  enough();
  go();
});
for (const name of ["boosted", "fusion", "rerank", "prune"]) {
  $(name).addEventListener("change", (event) => { state[name] = event.target.checked; go(); });
}
$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  say(null);
  open();
});
$("fields").append(...PLACE.map((name) => element(
  "label", {}, name,
  element("input", {
    id: `place-${name}`, autocomplete: "off", inputmode: name.endsWith("tude") ? "decimal" : null,
    onchange: (event) => { setPlace(state, name, event.target.value); placed(); },
  }),
)));
$("place").addEventListener("change", (event) => { if (!event.target.value) { state.place = {}; placed(); } });
$("person").addEventListener("change", (event) => { if (event.target.value !== "·") choose(event.target.value); });
$("more").addEventListener("click", () => { shown += SHOWN; render(); });
$("forget").addEventListener("click", () => choose(""));
const enough = suggests($("query"), "query", null);
suggests($("place"), "place", (one) => { state.place = { ...one.context }; go(); });
adds("searches", "query", (one) => one.query);
adds("shops", "shop", (one) => one.shop_id);
adds("clicked", "product", (one) => one.product);
adds("bought", "product", (one) => one.product);
document.addEventListener("keydown", onKey);
$("columns").addEventListener("pointerover", point);
$("columns").addEventListener("focusin", point);
addEventListener("popstate", open);
$("who").open = matchMedia("(min-width: 60rem)").matches;
open();
