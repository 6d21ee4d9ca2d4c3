// The points of a map, decoded from the response of GET /v1/map, with a grid that finds the point under the pointer.

const CELLS = 128; // per side of the grid

export class Points {
  constructor(map) {
    const { points, arrivals } = map;
    const names = points.owners.flatMap(([owner, models]) => models.map((name) => `${owner}/${name}`));
    const removed = new Set(map.removed);
    this.side = map.side;
    this.clusters = map.clusters;
    this.names = names.concat(arrivals.repo_ids);
    this.count = this.names.length;
    this.laidOut = points.x.length; // rows of the layout; arrivals follow
    this.x = Float32Array.from(points.x.concat(arrivals.x));
    this.y = Float32Array.from(points.y.concat(arrivals.y));
    this.cluster = Int32Array.from(points.cluster.concat(arrivals.cluster));
    this.distortion = Float32Array.from(points.distortion, (count) => count / Math.max(1, map.neighbors));
    this.present = Uint8Array.from({ length: this.count }, (_, row) => (removed.has(row) ? 0 : 1));
    this.shown = this.count - removed.size;
    this.rows = new Map();
    this.names.forEach((name, row) => this.present[row] && this.rows.set(name, row));
    this.namePositions = this.#namePositions();
    this.#buildGrid();
  }

  isArrival(row) {
    return row >= this.laidOut;
  }

  // The row of the nearest point within a radius in map units, or -1.
  nearest(x, y, radius) {
    let best = -1;
    let smallest = radius * radius;
    const [left, right] = [this.#cell(x - radius), this.#cell(x + radius)];
    const [low, high] = [this.#cell(y - radius), this.#cell(y + radius)];
    for (let row = low; row <= high; row += 1) {
      for (let column = left; column <= right; column += 1) {
        const cell = row * CELLS + column;
        for (let index = this.starts[cell]; index < this.starts[cell + 1]; index += 1) {
          const point = this.order[index];
          const distance = (this.x[point] - x) ** 2 + (this.y[point] - y) ** 2;
          if (distance < smallest) [best, smallest] = [point, distance];
        }
      }
    }
    return best;
  }

  // Up to `limit` names that contain the text. Names whose owner or model part begins with it come first.
  matching(text, limit) {
    const pattern = text.toLowerCase();
    const [prefixed, others] = [[], []];
    for (const name of this.rows.keys()) {
      const start = name.toLowerCase().indexOf(pattern);
      if (start < 0) continue;
      const matches = start === 0 || name[start - 1] === "/" ? prefixed : others;
      if (matches.length < limit) matches.push(name);
      if (prefixed.length === limit) break;
    }
    return [...prefixed, ...others].slice(0, limit);
  }

  #cell(value) {
    return Math.max(0, Math.min(CELLS - 1, Math.floor((value * CELLS) / (this.side + 1))));
  }

  // Sorts the rows by grid cell: those of a cell are order[starts[cell]] to order[starts[cell + 1] - 1].
  #buildGrid() {
    const cells = new Int32Array(this.count);
    this.starts = new Int32Array(CELLS * CELLS + 1);
    for (let row = 0; row < this.count; row += 1) {
      cells[row] = this.#cell(this.y[row]) * CELLS + this.#cell(this.x[row]);
      if (this.present[row]) this.starts[cells[row] + 1] += 1;
    }
    for (let cell = 0; cell < CELLS * CELLS; cell += 1) this.starts[cell + 1] += this.starts[cell];
    const next = this.starts.slice();
    this.order = new Int32Array(this.shown);
    for (let row = 0; row < this.count; row += 1) {
      if (this.present[row]) this.order[next[cells[row]]++] = row;
    }
  }

  // The position of each cluster's name: the median of its members.
  #namePositions() {
    const members = this.clusters.map(() => []);
    for (let row = 0; row < this.count; row += 1) {
      if (this.present[row] && this.cluster[row] >= 0) members[this.cluster[row]].push(row);
    }
    const median = (rows, values) => Float32Array.from(rows, (row) => values[row]).sort()[rows.length >> 1];
    return members.map((rows) => (rows.length ? [median(rows, this.x), median(rows, this.y)] : null));
  }
}

// A color for each cluster, with hues in steps of the golden angle, so that successive ones differ clearly.
export function color(cluster, dark) {
  if (cluster < 0) return dark ? "#767d86" : "#9aa1a9";
  const hue = (cluster * 137.508 + 210) % 360;
  const lightness = [48, 38, 58][Math.floor(cluster / 9) % 3] + (dark ? 14 : 0);
  return `hsl(${hue} 68% ${lightness}%)`;
}
