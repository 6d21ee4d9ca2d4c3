// The map page: loads the map from the API, fills the side panel, and handles pointer and keyboard events.
// Everything from the API is inserted as text, never as HTML: the names of models and clusters are untrusted.

import { MapCanvas } from "./map_canvas.js";
import { Points, color } from "./points.js";

const POLL_INTERVAL = 15_000; // milliseconds
const NEIGHBORS = 10;
const MAX_LEGEND = 60; // clusters that are listed

const byId = (id) => document.getElementById(id);
export const mapCanvas = new MapCanvas(byId("canvas"));
export const points = () => current; // null before the first response
let current = null;
let space = new URLSearchParams(location.search).get("space") ?? "";
let currentTag = ""; // ETag of the map that is shown

async function fetchJson(path) {
  const response = await fetch(path, { cache: "no-cache" });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail ?? response.statusText);
  return [body, response.headers.get("etag")];
}

function element(tag, text, attributes = {}) {
  const node = Object.assign(document.createElement(tag), attributes);
  if (text !== null) node.textContent = text;
  return node;
}

// Loads the map and shows it if it has changed, with the same model selected.
async function load() {
  let map;
  let tag;
  try {
    [map, tag] = await fetchJson(`/v1/map${space ? `?space=${encodeURIComponent(space)}` : ""}`);
  } catch (error) {
    byId("status").textContent = error.message;
    document.body.dataset.state = "failed";
    return;
  }
  if (tag === currentTag) return;
  currentTag = tag;
  const selected = current && mapCanvas.selected >= 0 ? current.names[mapCanvas.selected] : null;
  space = map.space;
  current = new Points(map);
  mapCanvas.hovered = -1;
  mapCanvas.highlighted = -1;
  mapCanvas.selected = -1;
  mapCanvas.show(current);
  showStatus(map);
  fillLegend();
  await selectModel(selected ?? nameInUrl());
  document.body.dataset.state = "ready";
}

function showStatus(map) {
  const arrivals = current.count - current.laidOut;
  const parts = [`${current.shown.toLocaleString("en")} models`, `${map.clusters.length} clusters`];
  if (arrivals) parts.push(`${arrivals} added since the map was built`);
  byId("status").textContent = parts.join(", ");
  const distortion = Math.round(100 * map.mean_distortion);
  byId("quality").textContent = `On average ${distortion}% of a model's nearest neighbors are far from it on the map.`;
}

function fillLegend() {
  const listed = current.clusters.slice(0, MAX_LEGEND);
  const rows = listed.map((cluster, index) => legendRow(cluster.name, index, cluster.size));
  const hidden = current.clusters.length - rows.length;
  if (hidden > 0) rows.push(element("li", `and ${hidden} smaller ones`, { className: "small" }));
  byId("legend").replaceChildren(...rows);
}

function legendRow(name, index, size) {
  const swatch = element("span", "", { className: "swatch" });
  swatch.style.backgroundColor = color(index, mapCanvas.dark.matches);
  const button = element("button", null, { type: "button" });
  button.setAttribute("aria-pressed", "false");
  button.append(swatch, element("span", name), element("span", size.toLocaleString("en")));
  button.addEventListener("click", () => {
    mapCanvas.highlighted = mapCanvas.highlighted === index ? -1 : index;
    byId("legend").querySelectorAll("button").forEach((other, position) => {
      other.setAttribute("aria-pressed", String(position === mapCanvas.highlighted));
    });
    mapCanvas.draw();
  });
  const row = element("li", null);
  row.append(button);
  return row;
}

function nameInUrl() {
  return decodeURIComponent(location.hash.slice(1)) || null;
}

// Selects a model and shows its neighbors. Null, or a name that is not on the map, closes the panel.
async function selectModel(name) {
  const row = name === null ? -1 : (current.rows.get(name) ?? -1);
  mapCanvas.selected = row;
  mapCanvas.neighbors = [];
  byId("model").hidden = row < 0;
  history.replaceState(null, "", row < 0 ? location.pathname + location.search : `#${encodeURIComponent(name)}`);
  mapCanvas.draw();
  if (row < 0) return;
  byId("model-name").textContent = name;
  byId("facts").replaceChildren(...facts(row));
  byId("neighbors").replaceChildren();
  byId("note").textContent = "";
  const [owner, model] = name.split("/").map(encodeURIComponent);
  try {
    const query = `k=${NEIGHBORS}&space=${encodeURIComponent(space)}`;
    const [response] = await fetchJson(`/v1/models/${owner}/${model}/neighbors?${query}`);
    if (mapCanvas.selected === row) showNeighbors(response);
  } catch (error) {
    byId("note").textContent = error.message;
  }
}

function facts(row) {
  const cluster = current.cluster[row];
  const position = current.isArrival(row)
    ? "placed among its neighbors since the map was built"
    : `${Math.round(100 * current.distortion[row])}% of its nearest neighbors are far from it on the map`;
  return [
    element("dt", "cluster"),
    element("dd", cluster < 0 ? "none" : current.clusters[cluster].name),
    element("dt", "position"),
    element("dd", position),
  ];
}

function showNeighbors(response) {
  byId("note").textContent = response.note ?? "";
  byId("neighbors").replaceChildren(
    ...response.neighbors.map((neighbor) => {
      const button = element("button", null, { type: "button" });
      button.append(element("span", neighbor.repo_id), element("span", neighbor.similarity.toFixed(3)));
      button.addEventListener("click", () => centerOn(neighbor.repo_id));
      const row = element("li", null);
      row.append(button);
      return row;
    }),
  );
  const rows = response.neighbors.map((neighbor) => current.rows.get(neighbor.repo_id));
  mapCanvas.neighbors = rows.filter((row) => row !== undefined);
  mapCanvas.draw();
}

function centerOn(name) {
  if (current?.rows.has(name)) mapCanvas.center(current.rows.get(name));
  return selectModel(name);
}

function hover(event) {
  const row = mapCanvas.rowAt(event.offsetX, event.offsetY);
  const tooltip = byId("tooltip");
  tooltip.hidden = row < 0;
  if (row >= 0) {
    const cluster = current.cluster[row];
    tooltip.textContent = current.names[row] + (cluster < 0 ? "" : `\n${current.clusters[cluster].name}`);
    tooltip.style.left = `${Math.min(event.offsetX + 12, mapCanvas.width - 180)}px`;
    tooltip.style.top = `${event.offsetY + 12}px`;
  }
  if (row !== mapCanvas.hovered) {
    mapCanvas.hovered = row;
    mapCanvas.draw();
  }
}

function addPointerListeners(canvas) {
  let dragStart = null;
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    dragStart = [event.offsetX, event.offsetY];
    moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (dragStart === null) return hover(event);
    const [dx, dy] = [event.offsetX - dragStart[0], event.offsetY - dragStart[1]];
    dragStart = [event.offsetX, event.offsetY];
    moved += Math.abs(dx) + Math.abs(dy);
    return mapCanvas.move(dx, dy);
  });
  canvas.addEventListener("pointerup", (event) => {
    const clicked = dragStart !== null && moved < 4;
    dragStart = null;
    if (!clicked || !current) return;
    const row = mapCanvas.rowAt(event.offsetX, event.offsetY);
    selectModel(row < 0 ? null : current.names[row]);
  });
  canvas.addEventListener("pointerleave", () => { byId("tooltip").hidden = true; });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    mapCanvas.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, { passive: false });
}

function addKeyListeners(canvas) {
  const actions = {
    ArrowLeft: () => mapCanvas.move(60, 0),
    ArrowRight: () => mapCanvas.move(-60, 0),
    ArrowUp: () => mapCanvas.move(0, 60),
    ArrowDown: () => mapCanvas.move(0, -60),
    "+": () => mapCanvas.zoom(1.4),
    "-": () => mapCanvas.zoom(1 / 1.4),
    0: () => mapCanvas.fitAll(),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  });
}

function addControlListeners() {
  const actions = { in: () => mapCanvas.zoom(1.4), out: () => mapCanvas.zoom(1 / 1.4), all: () => mapCanvas.fitAll() };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", actions[button.dataset.zoom]);
  }
  byId("search").addEventListener("input", (event) => {
    const text = event.target.value.trim();
    if (!current) return;
    const options = text ? current.matching(text, 12).map((name) => element("option", null, { value: name })) : [];
    byId("matches").replaceChildren(...options);
    if (current.rows.has(text)) centerOn(text);
  });
  byId("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !current) return;
    const [name] = current.matching(event.target.value.trim(), 1);
    if (name) centerOn(name);
  });
  byId("spaces").addEventListener("change", (event) => {
    location.href = `${location.pathname}?space=${encodeURIComponent(event.target.value)}`;
  });
  addEventListener("hashchange", () => current && centerOn(nameInUrl()));
}

async function fillSpaces() {
  const [{ spaces }] = await fetchJson("/v1/spaces");
  byId("spaces").replaceChildren(
    ...spaces.map(({ key, feature, base_repo: base }) => {
      const name = `${feature}, ${base ?? "all base models"}`;
      return element("option", name, { value: key, selected: key === space });
    }),
  );
}

addPointerListeners(byId("canvas"));
addKeyListeners(byId("canvas"));
addControlListeners();
await load();
await fillSpaces().catch((error) => { byId("status").textContent = error.message; });
await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))); // until it is drawn
document.body.dataset.page = "loaded";
setInterval(() => document.hidden || load(), POLL_INTERVAL);
