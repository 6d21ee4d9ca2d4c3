// The page: asks the API, fills the side panel, and hands what the pointer does to the drawing.
// Everything that comes from the API is put in as text, never as HTML: names are strangers' words.

import { Drawing } from "./drawing.js";
import { Points, colour } from "./points.js";

const POLL = 15_000; // milliseconds between looks for models that came since
const NEIGHBOURS = 10;
const LEGEND = 60; // clusters listed

const by = (id) => document.getElementById(id);
export const drawing = new Drawing(by("canvas"));
export const points = () => shown; // null before the first answer
let shown = null;
let space = new URLSearchParams(location.search).get("space") ?? "";
let last = ""; // the answer that is shown, by its ETag

async function ask(path) {
  const response = await fetch(path, { cache: "no-cache" });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? response.statusText);
  return [answer, response.headers.get("etag")];
}

function element(tag, text, attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  if (text !== null) made.textContent = text;
  return made;
}

async function load() {
  let map;
  let tag;
  try {
    [map, tag] = await ask(`/v1/map${space ? `?space=${encodeURIComponent(space)}` : ""}`);
  } catch (error) {
    by("status").textContent = error.message;
    document.body.dataset.state = "failed";
    return;
  }
  if (tag === last) return;
  last = tag;
  const selected = shown && drawing.selected >= 0 ? shown.names[drawing.selected] : null;
  space = map.space;
  shown = new Points(map);
  drawing.hovered = -1;
  drawing.highlighted = -1;
  drawing.selected = -1;
  drawing.show(shown);
  tell(map);
  fillLegend();
  await choose(selected ?? nameInAddress());
  document.body.dataset.state = "ready";
}

function tell(map) {
  const placed = shown.count - shown.fitted;
  const parts = [`${shown.shown.toLocaleString("en")} models`, `${map.clusters.length} clusters`];
  if (placed) parts.push(`${placed} since the map was made`);
  by("status").textContent = parts.join(", ");
  by("quality").textContent = `On average ${Math.round(100 * map.mean_distortion)} % of a model's neighbours are far from it here.`;
}

function fillLegend() {
  const rows = shown.clusters.slice(0, LEGEND).map((cluster, place) => legendRow(cluster.name, place, cluster.size));
  const hidden = shown.clusters.length - rows.length;
  if (hidden > 0) rows.push(element("li", `and ${hidden} smaller ones`, { className: "small" }));
  by("legend").replaceChildren(...rows);
}

function legendRow(name, place, size) {
  const swatch = element("span", "", { className: "swatch" });
  swatch.style.backgroundColor = colour(place, drawing.dark.matches);
  const button = element("button", null, { type: "button" });
  button.setAttribute("aria-pressed", "false");
  button.append(swatch, element("span", name), element("span", size.toLocaleString("en")));
  button.addEventListener("click", () => {
    drawing.highlighted = drawing.highlighted === place ? -1 : place;
    by("legend").querySelectorAll("button").forEach((each, at) => {
      each.setAttribute("aria-pressed", String(at === drawing.highlighted));
    });
    drawing.draw();
  });
  const row = element("li", null);
  row.append(button);
  return row;
}

function nameInAddress() {
  return decodeURIComponent(location.hash.slice(1)) || null;
}

// Show a model and what is near it. A name that is not on the map closes the panel.
async function choose(name) {
  const row = name === null ? -1 : (shown.rows.get(name) ?? -1);
  drawing.selected = row;
  drawing.neighbours = [];
  by("model").hidden = row < 0;
  history.replaceState(null, "", row < 0 ? location.pathname + location.search : `#${encodeURIComponent(name)}`);
  drawing.draw();
  if (row < 0) return;
  by("model-name").textContent = name;
  by("facts").replaceChildren(...facts(row));
  by("neighbours").replaceChildren();
  by("note").textContent = "";
  const [owner, model] = name.split("/").map(encodeURIComponent);
  try {
    const query = `k=${NEIGHBOURS}&space=${encodeURIComponent(space)}`;
    const [answer] = await ask(`/v1/models/${owner}/${model}/neighbors?${query}`);
    if (drawing.selected === row) showNeighbours(answer);
  } catch (error) {
    by("note").textContent = error.message;
  }
}

function facts(row) {
  const cluster = shown.cluster[row];
  const place = shown.isPlaced(row)
    ? "put among its neighbours since the map was made"
    : `${Math.round(100 * shown.distortion[row])} % of its neighbours are far from it here`;
  return [
    element("dt", "cluster"),
    element("dd", cluster < 0 ? "none" : shown.clusters[cluster].name),
    element("dt", "place"),
    element("dd", place),
  ];
}

function showNeighbours(answer) {
  by("note").textContent = answer.note ?? "";
  by("neighbours").replaceChildren(
    ...answer.neighbors.map((each) => {
      const button = element("button", null, { type: "button" });
      button.append(element("span", each.repo_id), element("span", each.similarity.toFixed(3)));
      button.addEventListener("click", () => find(each.repo_id));
      const row = element("li", null);
      row.append(button);
      return row;
    }),
  );
  drawing.neighbours = answer.neighbors.map((each) => shown.rows.get(each.repo_id)).filter((row) => row !== undefined);
  drawing.draw();
}

function find(name) {
  if (shown?.rows.has(name)) drawing.centre(shown.rows.get(name));
  return choose(name);
}

function hover(event) {
  const row = drawing.under(event.offsetX, event.offsetY);
  const tooltip = by("tooltip");
  tooltip.hidden = row < 0;
  if (row >= 0) {
    const cluster = shown.cluster[row];
    tooltip.textContent = shown.names[row] + (cluster < 0 ? "" : `\n${shown.clusters[cluster].name}`);
    tooltip.style.left = `${Math.min(event.offsetX + 12, drawing.width - 180)}px`;
    tooltip.style.top = `${event.offsetY + 12}px`;
  }
  if (row !== drawing.hovered) {
    drawing.hovered = row;
    drawing.draw();
  }
}

function listenToThePointer(canvas) {
  let held = null;
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held = [event.offsetX, event.offsetY];
    moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (held === null) return hover(event);
    const [dx, dy] = [event.offsetX - held[0], event.offsetY - held[1]];
    held = [event.offsetX, event.offsetY];
    moved += Math.abs(dx) + Math.abs(dy);
    return drawing.move(dx, dy);
  });
  canvas.addEventListener("pointerup", (event) => {
    const clicked = held !== null && moved < 4;
    held = null;
    if (!clicked || !shown) return;
    const row = drawing.under(event.offsetX, event.offsetY);
    choose(row < 0 ? null : shown.names[row]);
  });
  canvas.addEventListener("pointerleave", () => { by("tooltip").hidden = true; });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    drawing.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, { passive: false });
}

function listenToTheKeys(canvas) {
  const acts = {
    ArrowLeft: () => drawing.move(60, 0),
    ArrowRight: () => drawing.move(-60, 0),
    ArrowUp: () => drawing.move(0, 60),
    ArrowDown: () => drawing.move(0, -60),
    "+": () => drawing.zoom(1.4),
    "-": () => drawing.zoom(1 / 1.4),
    0: () => drawing.seeAll(),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  });
}

function listenToTheButtons() {
  const acts = { in: () => drawing.zoom(1.4), out: () => drawing.zoom(1 / 1.4), all: () => drawing.seeAll() };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", acts[button.dataset.zoom]);
  }
  by("search").addEventListener("input", (event) => {
    const text = event.target.value.trim();
    if (!shown) return;
    const options = text ? shown.matching(text, 12).map((name) => element("option", null, { value: name })) : [];
    by("found").replaceChildren(...options);
    if (shown.rows.has(text)) find(text);
  });
  by("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !shown) return;
    const [name] = shown.matching(event.target.value.trim(), 1);
    if (name) find(name);
  });
  by("spaces").addEventListener("change", (event) => {
    location.href = `${location.pathname}?space=${encodeURIComponent(event.target.value)}`;
  });
  addEventListener("hashchange", () => shown && find(nameInAddress()));
}

async function fillSpaces() {
  const [{ spaces }] = await ask("/v1/spaces");
  by("spaces").replaceChildren(
    ...spaces.map((each) => {
      const name = `${each.feature}, ${each.base_repo ?? "any base"}`;
      return element("option", name, { value: each.key, selected: each.key === space });
    }),
  );
}

listenToThePointer(by("canvas"));
listenToTheKeys(by("canvas"));
listenToTheButtons();
await load();
await fillSpaces().catch((error) => { by("status").textContent = error.message; });
await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))); // laid out and drawn
document.body.dataset.page = "whole";
setInterval(() => document.hidden || load(), POLL);
