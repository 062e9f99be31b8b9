// Elements. Text from the server is always text: there is no markup made of strings.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const place = (hit) => [hit.country, hit.region].filter(Boolean).join(" ");

function moved(change) {
  if (change === undefined || change === 0) return element("span", { class: "moved" });
  if (change === null) return element("span", { class: "moved new" }, "new");
  const [mark, way] = change > 0 ? ["▲", "up"] : ["▼", "down"];
  return element("span", { class: `moved ${way}`, "aria-label": `${way} ${Math.abs(change)}` }, `${mark}${Math.abs(change)}`);
}

function similarity(value) {
  const bar = element("span", { class: "bar" });
  bar.style.width = `${100 * Math.max(0, Math.min(1, value))}%`;
  const shown = value.toFixed(3).replace(/^(-?)0\./, "$1.");
  return element(
    "p", { class: "similarity", "aria-label": `similarity ${shown}` },
    element("span", { class: "track", "aria-hidden": "true" }, bar),
    element("span", { class: "number" }, shown),
  );
}

function act(what, hit, actions) {
  if (!actions[what]) return null;
  const about = { type: "button", tabindex: "-1", "aria-label": `${what}: ${hit.title}`, onclick: () => actions[what](hit) };
  return element("button", about, `+ ${what}`);
}

// One product. `known` says what of it the person knows: their country, their shops.
export function card(hit, number, change, known, actions) {
  const facts = [
    hit.price === null ? null : element("span", {}, hit.price.toFixed(2)),
    hit.shop_id === null ? null : element("span", { class: known.shops.has(hit.shop_id) ? "own" : null }, hit.shop_id),
    place(hit) ? element("span", { class: hit.country && hit.country === known.country ? "own" : null }, place(hit)) : null,
  ];
  return element(
    "li", { class: "card", tabindex: "-1", "data-product": hit.product_id },
    element("div", { class: "rank" }, element("span", { class: "number" }, String(number)), moved(change)),
    element(
      "div", { class: "what" },
      element("h3", {}, hit.title),
      element(
        "div", { class: "facts" },
        ...facts,
        element("span", { class: "actions" }, act("clicked", hit, actions), act("bought", hit, actions)),
      ),
      similarity(hit.similarity),
    ),
  );
}

// What moved among the products that are shown, and how many are from where the person is.
function summary(column, known) {
  const hits = column.hits.slice(0, column.shown);
  const parts = [];
  if (column.changes) {
    const changes = hits.map((hit) => column.changes.get(hit.product_id));
    const counts = [
      [changes.filter((change) => change === null).length, "new"],
      [changes.filter((change) => change > 0).length, "up"],
      [changes.filter((change) => change < 0).length, "down"],
    ].filter(([count]) => count);
    parts.push(counts.map(([count, way]) => `${count} ${way}`).join(", ") || "the same");
  }
  if (known.country) parts.push(`${hits.filter((hit) => hit.country === known.country).length} in ${known.country}`);
  return parts.join(" · ");
}

const milliseconds = (seconds) => `${seconds < 0.01 ? (1000 * seconds).toFixed(1) : Math.round(1000 * seconds)} ms`;

function age(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

const cost = ({ cache, seconds }) => (cache.layer === null ? milliseconds(seconds) : `cached ${age(cache.age_seconds)} ago`);

// A column: `hits`, `changes`, `shown`, `seconds`, `cache`, or `why` there is none.
export function column(one, known, actions) {
  const head = element(
    "header", {},
    element("h2", { id: `${one.id}-title` }, one.title, one.why ? null : element("small", {}, cost(one))),
    element("p", { class: "summary" }, one.why ? "" : summary(one, known)),
  );
  const section = element("section", { class: "column", id: one.id, "aria-labelledby": `${one.id}-title` }, head);
  if (one.why) {
    section.append(element("p", { class: "why" }, one.why));
    if (one.offer && actions.somebody) {
      section.append(element("button", { type: "button", class: "offer", onclick: actions.somebody }, "Try a person"));
    }
    return section;
  }
  if (one.hits.length === 0) section.append(element("p", { class: "why" }, "No products."));
  section.append(
    element(
      "ol", { class: "cards" },
      ...one.hits.slice(0, one.shown).map((hit, place) =>
        card(hit, place + 1, one.changes?.get(hit.product_id), known, actions)),
    ),
  );
  section.querySelector(".card")?.setAttribute("tabindex", "0");
  return section;
}

export function chips(list, entries, remove) {
  const limit = 3;
  const shown = list.dataset.all === "1" ? entries : entries.slice(0, limit);
  list.replaceChildren(
    ...shown.map((entry, place) => element(
      "li", {},
      element("span", { title: entry.title ?? entry }, entry.title ?? entry),
      element("button", { type: "button", "aria-label": `remove ${entry.title ?? entry}`, onclick: () => remove(place) }, "×"),
    )),
  );
  if (shown.length < entries.length) {
    const more = () => { list.dataset.all = "1"; chips(list, entries, remove); };
    list.append(element("li", { class: "more" }, element("button", { type: "button", onclick: more }, `${entries.length - limit} more`)));
  }
}
