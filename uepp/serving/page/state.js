// What is searched and by whom, and how that is written into the address, so that a view can be shared.

export const PLACE = ["country", "region", "language", "zip", "latitude", "longitude"];
const NUMBERS = new Set(["latitude", "longitude"]);

export function empty() {
  return {
    query: "", person: "", place: {}, searches: [], shops: [], clicked: [], bought: [],
    boosted: true, fusion: false, rerank: false, prune: false,
    isComplete: true, // else the server is to be asked for what is known of the person and the products
  };
}

export const hasPlace = (state) => PLACE.some((name) => state.place[name] !== undefined);
export const hasHistory = (state) =>
  [state.searches, state.shops, state.clicked, state.bought].some((part) => part.length > 0);

// A person who was not changed is written as their id alone.
export function toAddress(state) {
  const parts = new URLSearchParams();
  if (state.query) parts.append("q", state.query);
  for (const name of PLACE) if (state.place[name] !== undefined) parts.append(name, state.place[name]);
  if (state.person) parts.append("person", state.person);
  else {
    for (const text of state.searches) parts.append("search", text);
    for (const shop of state.shops) parts.append("shop", shop);
    for (const product of state.clicked) parts.append("clicked", product.product_id);
    for (const product of state.bought) parts.append("bought", product.product_id);
  }
  if (!state.boosted) parts.append("boosted", "0");
  if (state.fusion) parts.append("fusion", "1");
  if (state.rerank) parts.append("rerank", "1");
  if (state.prune) parts.append("prune", "1");
  const text = parts.toString();
  return text ? `?${text}` : location.pathname;
}

// Products are known by their ids only; their titles come from the server.
export function fromAddress(text) {
  const parts = new URLSearchParams(text);
  const products = (name) => parts.getAll(name).map((product_id) => ({ product_id, title: product_id }));
  const state = {
    ...empty(),
    query: parts.get("q") ?? "",
    person: parts.get("person") ?? "",
    searches: parts.getAll("search"),
    shops: parts.getAll("shop"),
    clicked: products("clicked"),
    bought: products("bought"),
    boosted: parts.get("boosted") !== "0",
    fusion: parts.get("fusion") === "1",
    rerank: parts.get("rerank") === "1",
    prune: parts.get("prune") === "1",
    isComplete: false,
  };
  for (const name of PLACE) setPlace(state, name, parts.get(name) ?? "");
  return state;
}

export function setPlace(state, name, text) {
  const value = NUMBERS.has(name) ? Number.parseFloat(text) : text.trim();
  if (value === "" || Number.isNaN(value)) delete state.place[name];
  else state.place[name] = value;
}

// The three searches that show personalisation grow (UEPPR, Figure 1); `why` says why one cannot be made.
export function columns(state, about, k) {
  const base = {
    query: state.query, k, boosted: state.boosted, fusion: state.fusion && about.has_fusion,
    rerank: state.rerank && about.has_ranker,
    min_similarity: state.prune && about.threshold !== null ? "auto" : "off",
  };
  // A ranker reads both, whatever the query tower does.
  const [readsPlaces, readsHistories] = [about.reads_places || base.rerank, about.reads_histories || base.rerank];
  const placed = readsPlaces ? { ...base, ...state.place } : base;
  const history = { ...placed };
  if (state.searches.length) history.recent_searches = state.searches;
  if (state.shops.length) history.recent_shops = state.shops;
  if (state.clicked.length) history.clicked_products = state.clicked.map((product) => product.product_id);
  if (state.bought.length) history.purchased_products = state.bought.map((product) => product.product_id);
  return [
    { id: "alone", title: "Query alone", body: base, why: null },
    {
      id: "place", title: "+ place", body: placed,
      why: !readsPlaces
        ? "This run’s query tower reads no places: model.query_encoders has no location."
        : hasPlace(state) ? null : "Nothing is known of where they are.",
      offer: readsPlaces,
    },
    {
      id: "history", title: "+ history", body: history,
      why: !readsHistories
        ? "This run’s query tower reads no histories: model.query_encoders has no history."
        : hasHistory(state) ? null : "Nothing is known of what they did before.",
      offer: readsHistories,
    },
  ];
}

// How a ranking differs from the one to its left: by product, ranks up (> 0) or down (< 0), or null for new.
export function movement(hits, before) {
  const rank = new Map(before.map((hit, place) => [hit.product_id, place]));
  return new Map(
    hits.map((hit, place) => [hit.product_id, rank.has(hit.product_id) ? rank.get(hit.product_id) - place : null]),
  );
}
