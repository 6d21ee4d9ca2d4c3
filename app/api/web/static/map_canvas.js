// Draws the map on a canvas: the points in the viewport, the names of the clusters, and the lines to neighbors.

import { color } from "./points.js";

const FADES = 4; // opacity steps from an undistorted point to one whose neighbors are all elsewhere
const MAX_NAMES = 25; // clusters whose names are drawn
const MARGIN = 28; // pixels around the map when all of it is in view

export class MapCanvas {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = null;
    this.highlighted = -1; // index of a cluster
    this.selected = -1; // rows of points
    this.neighbors = [];
    this.hovered = -1;
    this.viewport = null; // the center in map units, and the scale in pixels per unit
    this.moved = false; // once the user has moved the viewport, nothing else moves it
    this.frameRequested = false;
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
  }

  show(points) {
    this.points = points;
    this.#sortByStyle();
    if (!this.moved) this.fitAll();
    this.draw();
  }

  fitAll() {
    if (!this.points) return;
    const { x, y, present, count } = this.points;
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let row = 0; row < count; row += 1) {
      if (!present[row]) continue;
      left = Math.min(left, x[row]);
      right = Math.max(right, x[row]);
      low = Math.min(low, y[row]);
      high = Math.max(high, y[row]);
    }
    if (left > right) [left, right, low, high] = [0, 1, 0, 1];
    const [width, height] = [this.width - 2 * MARGIN, this.height - 2 * MARGIN];
    const scale = Math.min(width / Math.max(right - left, 1), height / Math.max(high - low, 1));
    this.moved = false;
    this.viewport = { x: (left + right) / 2, y: (low + high) / 2, scale: Math.max(scale, 1e-3) };
    this.draw();
  }

  // Converts pixels to map units, whose y grows upwards.
  toMap(px, py) {
    const { x, y, scale } = this.viewport;
    return [x + (px - this.width / 2) / scale, y - (py - this.height / 2) / scale];
  }

  toPixels(row) {
    const { x, y, scale } = this.viewport;
    return this.#pixels(this.points.x[row], this.points.y[row], x, y, scale);
  }

  move(dx, dy) {
    if (!this.viewport) return;
    this.moved = true;
    this.viewport.x -= dx / this.viewport.scale;
    this.viewport.y += dy / this.viewport.scale;
    this.draw();
  }

  zoom(factor, px = this.width / 2, py = this.height / 2) {
    if (!this.viewport) return;
    this.moved = true;
    const [x, y] = this.toMap(px, py);
    const scale = Math.max(1e-3, Math.min(200, this.viewport.scale * factor));
    this.viewport = { x: x - (px - this.width / 2) / scale, y: y + (py - this.height / 2) / scale, scale };
    this.draw();
  }

  center(row) {
    this.moved = true;
    this.viewport.x = this.points.x[row];
    this.viewport.y = this.points.y[row];
    this.draw();
  }

  rowAt(px, py) {
    return this.points ? this.points.nearest(...this.toMap(px, py), 10 / this.viewport.scale) : -1;
  }

  draw() {
    if (this.frameRequested) return;
    this.frameRequested = true;
    requestAnimationFrame(() => {
      this.frameRequested = false;
      if (this.points && this.viewport) this.#draw();
    });
  }

  #pixels(px, py, x, y, scale) {
    return [this.width / 2 + (px - x) * scale, this.height / 2 - (py - y) * scale];
  }

  #resize() {
    const ratio = devicePixelRatio || 1;
    this.width = Math.max(this.canvas.clientWidth, 1);
    this.height = Math.max(this.canvas.clientHeight, 1);
    this.canvas.width = this.width * ratio;
    this.canvas.height = this.height * ratio;
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (!this.moved) this.fitAll();
    this.draw();
  }

  // Groups the rows by color and fade: changing the style costs more than drawing a point.
  #sortByStyle() {
    const { points } = this;
    const rows = Array.from(points.order);
    this.styles = new Int32Array(points.count);
    for (const row of rows) {
      const fade = points.isArrival(row) ? 0 : Math.min(FADES - 1, Math.floor(points.distortion[row] * FADES));
      this.styles[row] = (points.cluster[row] + 1) * 2 * FADES + (points.isArrival(row) ? FADES : 0) + fade;
    }
    rows.sort((a, b) => this.styles[a] - this.styles[b]);
    this.sorted = Int32Array.from(rows);
  }

  #draw() {
    const { context, points, width, height } = this;
    const { x, y, scale } = this.viewport;
    const size = Math.max(1.5, Math.min(9, 160 / Math.sqrt(points.shown + 1) + 0.6 * Math.sqrt(scale)));
    context.clearRect(0, 0, width, height);
    let style = -1;
    for (const row of this.sorted) {
      const [px, py] = this.#pixels(points.x[row], points.y[row], x, y, scale);
      if (px < -size || py < -size || px > width + size || py > height + size) continue;
      if (this.styles[row] !== style) {
        style = this.styles[row];
        this.#setStyle(points.cluster[row], style % FADES);
      }
      this.#drawPoint(px, py, size, points.isArrival(row));
    }
    context.globalAlpha = 1;
    this.#drawLines();
    this.#drawNames();
    this.#drawRing(this.hovered, 2);
    this.#drawRing(this.selected, 4);
  }

  #setStyle(cluster, fade) {
    const dimmed = this.highlighted >= 0 && cluster !== this.highlighted;
    this.context.fillStyle = this.context.strokeStyle = color(cluster, this.dark.matches);
    this.context.globalAlpha = (dimmed ? 0.08 : 0.9) * (1 - (0.8 * fade) / (FADES - 1));
  }

  #drawPoint(px, py, size, isArrival) {
    const { context } = this;
    if (!isArrival && size < 4) {
      context.fillRect(px - size / 2, py - size / 2, size, size);
      return;
    }
    context.beginPath();
    context.arc(px, py, Math.max(size, 4) / 2 + (isArrival ? 1 : 0), 0, 2 * Math.PI);
    if (isArrival) context.stroke();
    else context.fill();
  }

  #drawLines() {
    if (this.selected < 0) return;
    const { context } = this;
    const from = this.toPixels(this.selected);
    context.strokeStyle = this.#ink();
    context.lineWidth = 0.7;
    context.beginPath();
    for (const row of this.neighbors) {
      context.moveTo(...from);
      context.lineTo(...this.toPixels(row));
    }
    context.stroke();
    context.lineWidth = 1;
  }

  #drawNames() {
    const { context, points } = this;
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.lineJoin = "round";
    context.strokeStyle = this.dark.matches ? "#15171a" : "#fff";
    context.fillStyle = this.#ink();
    points.clusters.slice(0, MAX_NAMES).forEach(({ name }, cluster) => {
      const position = points.namePositions[cluster];
      if (!position || (this.highlighted >= 0 && cluster !== this.highlighted)) return;
      const [px, py] = this.#pixels(...position, this.viewport.x, this.viewport.y, this.viewport.scale);
      context.lineWidth = 4;
      context.strokeText(name, px, py - 9);
      context.fillText(name, px, py - 9);
    });
    context.lineWidth = 1;
  }

  #drawRing(row, width) {
    if (row < 0) return;
    const { context } = this;
    context.strokeStyle = this.#ink();
    context.lineWidth = width / 2;
    context.beginPath();
    context.arc(...this.toPixels(row), 7, 0, 2 * Math.PI);
    context.stroke();
    context.lineWidth = 1;
  }

  #ink() {
    return this.dark.matches ? "#e4e6e9" : "#1d2126";
  }
}
