// The canvas: which part of the map is seen, and its points, names and lines.

import { colour } from "./points.js";

const FADES = 4; // steps from a point in its true place to one whose neighbours are all elsewhere
const NAMES = 25; // clusters whose names are written
const MARGIN = 28; // pixels around the map when all of it is seen

export class Drawing {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = null;
    this.highlighted = -1; // a cluster
    this.selected = -1;
    this.neighbours = [];
    this.hovered = -1;
    this.seen = null;
    this.moved = false; // by the reader: from then on nothing else moves what is seen
    this.due = false;
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
  }

  show(points) {
    this.points = points;
    this.#sortByStyle();
    if (!this.moved) this.seeAll();
    this.draw();
  }

  seeAll() {
    if (!this.points) return;
    const { x, y, alive, count } = this.points;
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let row = 0; row < count; row += 1) {
      if (!alive[row]) continue;
      left = Math.min(left, x[row]);
      right = Math.max(right, x[row]);
      low = Math.min(low, y[row]);
      high = Math.max(high, y[row]);
    }
    if (left > right) [left, right, low, high] = [0, 1, 0, 1];
    const [width, height] = [this.width - 2 * MARGIN, this.height - 2 * MARGIN];
    const scale = Math.min(width / Math.max(right - left, 1), height / Math.max(high - low, 1));
    this.moved = false;
    this.seen = { x: (left + right) / 2, y: (low + high) / 2, scale: Math.max(scale, 1e-3) };
    this.draw();
  }

  // Pixels to the map's units and back; y grows upwards on the map.
  toMap(px, py) {
    const { x, y, scale } = this.seen;
    return [x + (px - this.width / 2) / scale, y - (py - this.height / 2) / scale];
  }

  toPixels(row) {
    const { x, y, scale } = this.seen;
    return this.#pixels(this.points.x[row], this.points.y[row], x, y, scale);
  }

  move(dx, dy) {
    if (!this.seen) return;
    this.moved = true;
    this.seen.x -= dx / this.seen.scale;
    this.seen.y += dy / this.seen.scale;
    this.draw();
  }

  zoom(factor, px = this.width / 2, py = this.height / 2) {
    if (!this.seen) return;
    this.moved = true;
    const [x, y] = this.toMap(px, py);
    const scale = Math.max(1e-3, Math.min(200, this.seen.scale * factor));
    this.seen = { x: x - (px - this.width / 2) / scale, y: y + (py - this.height / 2) / scale, scale };
    this.draw();
  }

  centre(row) {
    this.moved = true;
    this.seen.x = this.points.x[row];
    this.seen.y = this.points.y[row];
    this.draw();
  }

  under(px, py) {
    return this.points ? this.points.nearest(...this.toMap(px, py), 10 / this.seen.scale) : -1;
  }

  draw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      if (this.points && this.seen) this.#draw();
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
    if (!this.moved) this.seeAll();
    this.draw();
  }

  // Points of one colour and one fade after each other: a change of style costs more than a point.
  #sortByStyle() {
    const { points } = this;
    const rows = Array.from(points.order);
    this.styles = new Int32Array(points.count);
    for (const row of rows) {
      const fade = points.isPlaced(row) ? 0 : Math.min(FADES - 1, Math.floor(points.distortion[row] * FADES));
      this.styles[row] = (points.cluster[row] + 1) * 2 * FADES + (points.isPlaced(row) ? FADES : 0) + fade;
    }
    rows.sort((a, b) => this.styles[a] - this.styles[b]);
    this.sorted = Int32Array.from(rows);
  }

  #draw() {
    const { context, points, width, height } = this;
    const { x, y, scale } = this.seen;
    const size = Math.max(1.5, Math.min(9, 160 / Math.sqrt(points.shown + 1) + 0.6 * Math.sqrt(scale)));
    context.clearRect(0, 0, width, height);
    let style = -1;
    for (const row of this.sorted) {
      const [px, py] = this.#pixels(points.x[row], points.y[row], x, y, scale);
      if (px < -size || py < -size || px > width + size || py > height + size) continue;
      if (this.styles[row] !== style) {
        style = this.styles[row];
        this.#take(points.cluster[row], style % FADES);
      }
      this.#point(px, py, size, points.isPlaced(row));
    }
    context.globalAlpha = 1;
    this.#drawLines();
    this.#drawNames();
    this.#ring(this.hovered, 2);
    this.#ring(this.selected, 4);
  }

  #take(cluster, fade) {
    const away = this.highlighted >= 0 && cluster !== this.highlighted;
    this.context.fillStyle = this.context.strokeStyle = colour(cluster, this.dark.matches);
    this.context.globalAlpha = (away ? 0.08 : 0.9) * (1 - (0.8 * fade) / (FADES - 1));
  }

  #point(px, py, size, placed) {
    const { context } = this;
    if (!placed && size < 4) {
      context.fillRect(px - size / 2, py - size / 2, size, size);
      return;
    }
    context.beginPath();
    context.arc(px, py, Math.max(size, 4) / 2 + (placed ? 1 : 0), 0, 2 * Math.PI);
    if (placed) context.stroke();
    else context.fill();
  }

  #drawLines() {
    if (this.selected < 0) return;
    const { context } = this;
    const from = this.toPixels(this.selected);
    context.strokeStyle = this.#ink();
    context.lineWidth = 0.7;
    context.beginPath();
    for (const row of this.neighbours) {
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
    points.clusters.slice(0, NAMES).forEach(({ name }, cluster) => {
      const middle = points.middles[cluster];
      if (!middle || (this.highlighted >= 0 && cluster !== this.highlighted)) return;
      const [px, py] = this.#pixels(...middle, this.seen.x, this.seen.y, this.seen.scale);
      context.lineWidth = 4;
      context.strokeText(name, px, py - 9);
      context.fillText(name, px, py - 9);
    });
    context.lineWidth = 1;
  }

  #ring(row, width) {
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
