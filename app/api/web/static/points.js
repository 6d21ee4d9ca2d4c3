// What GET /v1/map answers, made ready for drawing and for finding the point under the pointer.

const CELLS = 128; // a side, of the grid that finds the nearest point

export class Points {
  constructor(map) {
    const { points, placed } = map;
    const fitted = points.x.length;
    const names = points.owners.flatMap(([owner, models]) => models.map((name) => `${owner}/${name}`));
    const gone = new Set(map.gone);
    this.side = map.side;
    this.clusters = map.clusters;
    this.names = names.concat(placed.repo_ids);
    this.count = this.names.length;
    this.fitted = fitted;
    this.x = Float32Array.from(points.x.concat(placed.x));
    this.y = Float32Array.from(points.y.concat(placed.y));
    this.cluster = Int32Array.from(points.cluster.concat(placed.cluster));
    this.distortion = Float32Array.from(points.distortion, (count) => count / Math.max(1, map.neighbours));
    this.alive = Uint8Array.from({ length: this.count }, (_, row) => (gone.has(row) ? 0 : 1));
    this.shown = this.count - gone.size;
    this.rows = new Map();
    this.names.forEach((name, row) => this.alive[row] && this.rows.set(name, row));
    this.middles = this.#middles();
    this.#fileIntoGrid();
  }

  isPlaced(row) {
    return row >= this.fitted;
  }

  // The nearest point within a radius, in the map's units; -1 where there is none.
  nearest(x, y, radius) {
    let best = -1;
    let least = radius * radius;
    const [left, right] = [this.#cell(x - radius), this.#cell(x + radius)];
    const [low, high] = [this.#cell(y - radius), this.#cell(y + radius)];
    for (let row = low; row <= high; row += 1) {
      for (let column = left; column <= right; column += 1) {
        const cell = row * CELLS + column;
        for (let at = this.starts[cell]; at < this.starts[cell + 1]; at += 1) {
          const point = this.order[at];
          const distance = (this.x[point] - x) ** 2 + (this.y[point] - y) ** 2;
          if (distance < least) [best, least] = [point, distance];
        }
      }
    }
    return best;
  }

  // Names that hold the text, those that begin with it (or whose part after the slash does) first.
  matching(text, limit) {
    const wanted = text.toLowerCase();
    const found = [[], []];
    for (const name of this.rows.keys()) {
      const at = name.toLowerCase().indexOf(wanted);
      if (at < 0) continue;
      const list = found[at === 0 || name[at - 1] === "/" ? 0 : 1];
      if (list.length < limit) list.push(name);
      if (found[0].length === limit) break;
    }
    return found.flat().slice(0, limit);
  }

  #cell(value) {
    return Math.max(0, Math.min(CELLS - 1, Math.floor((value * CELLS) / (this.side + 1))));
  }

  #fileIntoGrid() {
    const cells = new Int32Array(this.count);
    this.starts = new Int32Array(CELLS * CELLS + 1);
    for (let row = 0; row < this.count; row += 1) {
      cells[row] = this.#cell(this.y[row]) * CELLS + this.#cell(this.x[row]);
      if (this.alive[row]) this.starts[cells[row] + 1] += 1;
    }
    for (let cell = 0; cell < CELLS * CELLS; cell += 1) this.starts[cell + 1] += this.starts[cell];
    const next = this.starts.slice();
    this.order = new Int32Array(this.shown);
    for (let row = 0; row < this.count; row += 1) {
      if (this.alive[row]) this.order[next[cells[row]]++] = row;
    }
  }

  // Where the name of each cluster is written: the median of its members.
  #middles() {
    const members = this.clusters.map(() => []);
    for (let row = 0; row < this.count; row += 1) {
      if (this.alive[row] && this.cluster[row] >= 0) members[this.cluster[row]].push(row);
    }
    const median = (rows, values) => Float32Array.from(rows, (row) => values[row]).sort()[rows.length >> 1];
    return members.map((rows) => (rows.length ? [median(rows, this.x), median(rows, this.y)] : null));
  }
}

// As many colours as clusters, each far from the one before: steps of the golden angle around the wheel.
export function colour(cluster, dark) {
  if (cluster < 0) return dark ? "#767d86" : "#9aa1a9";
  const hue = (cluster * 137.508 + 210) % 360;
  const lightness = [48, 38, 58][Math.floor(cluster / 9) % 3] + (dark ? 14 : 0);
  return `hsl(${hue} 68% ${lightness}%)`;
}
