// What is painted: one bit for each pixel, with hard edges, so that what is sent is what was seen.

/** A square of painted and unpainted pixels. */
export class Mask {
  /** @param {number} side In pixels. */
  constructor(side) {
    this.side = side;
    this.bits = new Uint8Array(side * side);
  }

  /** @returns {boolean} Whether nothing is painted. */
  get empty() {
    return !this.bits.includes(1);
  }

  /**
   * Paint or wipe a round dot.
   * @param {number} x
   * @param {number} y
   * @param {number} radius In pixels; the pixel that holds the centre is always painted.
   * @param {0|1} value
   */
  dot(x, y, radius, value) {
    this.#each(x - radius, y - radius, x + radius + 1, y + radius + 1, (column, row) => {
      const centre = column === Math.floor(x) && row === Math.floor(y);
      const near = Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius;
      if (centre || near) this.#set(column, row, value);
    });
  }

  /**
   * Paint or wipe a round line.
   * @param {{x: number, y: number}} from
   * @param {{x: number, y: number}} to
   * @param {number} radius
   * @param {0|1} value
   */
  line(from, to, radius, value) {
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    const steps = Math.ceil(length / Math.max(radius / 2, 0.5)) || 1;
    for (let step = 0; step <= steps; step += 1) {
      const share = step / steps;
      this.dot(from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, radius, value);
    }
  }

  /**
   * Paint or wipe a rectangle: all pixels that it touches.
   * @param {{x: number, y: number}} from
   * @param {{x: number, y: number}} to
   * @param {0|1} value
   */
  rectangle(from, to, value) {
    const [left, right] = [from.x, to.x].sort((a, b) => a - b);
    const [top, bottom] = [from.y, to.y].sort((a, b) => a - b);
    this.#each(left, top, Math.max(right, left + 1), Math.max(bottom, top + 1), (column, row) =>
      this.#set(column, row, value),
    );
  }

  /** @param {0|1} value */
  fill(value) {
    this.bits.fill(value);
  }

  /** Paint what is not painted and the other way round. */
  invert() {
    this.bits = this.bits.map((bit) => 1 - bit);
  }

  /**
   * Which cells of a grid have a painted pixel: what the run will redraw.
   * @param {number} rows
   * @param {number} columns
   * @returns {Uint8Array} rows * columns of 0 or 1.
   */
  cells(rows, columns) {
    const touched = new Uint8Array(rows * columns);
    for (let row = 0; row < this.side; row += 1) {
      const first = Math.floor((row * rows) / this.side) * columns;
      for (let column = 0; column < this.side; column += 1) {
        const cell = first + Math.floor((column * columns) / this.side);
        if (this.bits[row * this.side + column]) touched[cell] = 1;
      }
    }
    return touched;
  }

  /**
   * A picture of it.
   * @param {[number, number, number]} painted Its colour.
   * @param {[number, number, number]} other That of the rest.
   * @returns {string} A data: URL of a PNG, opaque.
   */
  picture(painted, other) {
    const canvas = document.createElement("canvas");
    canvas.width = this.side;
    canvas.height = this.side;
    const pixels = new ImageData(this.side, this.side);
    this.bits.forEach((bit, place) => {
      pixels.data.set(bit ? painted : other, place * 4);
      pixels.data[place * 4 + 3] = 255;
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas.toDataURL("image/png");
  }

  #set(column, row, value) {
    this.bits[row * this.side + column] = value;
  }

  #each(left, top, right, bottom, visit) {
    const start = (value) => Math.max(0, Math.floor(value));
    const stop = (value) => Math.min(this.side, Math.ceil(value));
    for (let row = start(top); row < stop(bottom); row += 1) {
      for (let column = start(left); column < stop(right); column += 1) visit(column, row);
    }
  }
}
