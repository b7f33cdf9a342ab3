// Painting on a square: a brush, an eraser and a rectangle by pointer, cells of the code grid by keyboard.

import { announce, button, make } from "./element.js";
import { Mask } from "./mask.js";

const SHARPNESS = 512;
const UNDOABLE = 20;
let number = 0;

/** A place to paint: over a picture, or a sketch on white. */
export class Painter {
  #canvas;
  #image = make("img", { alt: "", draggable: "false" });
  #size;
  #grid;
  #tool = "brush";
  #cell = null;
  #last = null;
  #start = null;
  #past = [];
  #style;
  #frame = 0;

  /**
   * @param {HTMLElement} place
   * @param {{grid: [number, number], label: string, over: boolean, changed: () => void}} options
   *   `over`: whether there is a picture below, of which cells will be redrawn.
   */
  constructor(place, { grid, label, over, changed }) {
    this.#grid = grid;
    this.over = over;
    this.changed = changed;
    this.mask = new Mask(256);
    const hint = `paint-hint-${(number += 1)}`;
    this.#canvas = make("canvas", {
      width: SHARPNESS, height: SHARPNESS, tabindex: 0, role: "application",
      "aria-label": label, "aria-describedby": hint,
    });
    const stage = make("div", { class: "stage" }, this.#image, this.#canvas);
    stage.classList.toggle("paper", !over);
    place.append(
      make("div", { class: "painter" }, this.#tools(), stage,
        make("p", { class: "hint", id: hint },
          over
            ? "Striped cells will be redrawn. By keyboard: arrows move over the cells, space takes one."
            : "By keyboard: arrows move over the cells, space fills one.")),
    );
    this.#listen();
    this.#draw();
  }

  /**
   * Begin anew on a picture.
   * @param {{url: string, side: number}|null} picture
   */
  begin(picture) {
    this.#image.hidden = !picture;
    if (picture) this.#image.src = picture.url;
    this.mask = new Mask(picture?.side ?? 256);
    this.#past = [];
    this.#draw();
  }

  /**
   * Put back what was painted once.
   * @param {string} url What `picture` gave.
   */
  async restore(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = image.naturalWidth;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.width).data;
    this.mask = new Mask(canvas.width);
    this.mask.bits = this.mask.bits.map((_, place) => Number(pixels[place * 4] > 127 === this.over));
    this.#draw();
  }

  /** @returns {string} What is painted, as a data: URL: white on black over a picture, else black on white. */
  picture() {
    const [white, black] = [[255, 255, 255], [0, 0, 0]];
    return this.over ? this.mask.picture(white, black) : this.mask.picture(black, white);
  }

  #tools() {
    const kinds = [["brush", "Brush"], ["eraser", "Eraser"]];
    if (this.over) kinds.push(["rectangle", "Rectangle"]);
    const choice = make("div", { class: "segmented", role: "group", "aria-label": "Tool" });
    for (const [name, label] of kinds) {
      const one = button(label, () => {
        this.#tool = name;
        for (const other of choice.children) other.setAttribute("aria-pressed", String(other === one));
      }, { "aria-pressed": String(name === "brush") });
      choice.append(one);
    }
    this.#size = make("input", { type: "range", min: 1, max: 12, value: this.over ? 5 : 1, step: 1 });
    const act = (label, change) => button(label, () => {
      this.#remember();
      change();
      this.#done();
    }, { class: "quiet" });
    return make("div", { class: "paint-tools" }, choice,
      make("label", { class: "size" }, make("span", {}, "Size"), this.#size),
      make("div", { class: "paint-acts" },
        button("Undo", () => this.#undo(), { class: "quiet" }),
        ...(this.over ? [act("All", () => this.mask.fill(1)), act("Invert", () => this.mask.invert())] : []),
        act("Clear", () => this.mask.fill(0))));
  }

  #listen() {
    const canvas = this.#canvas;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#remember();
      this.#cell = null;
      this.#start = this.#last = this.#place(event);
      this.#stroke(this.#last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.#last) return;
      const coalesced = event.getCoalescedEvents?.() ?? [];
      for (const one of coalesced.length ? coalesced : [event]) this.#stroke(this.#place(one));
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        if (!this.#last) return;
        if (this.#tool === "rectangle") this.mask.rectangle(this.#start, this.#last, 1);
        this.#start = this.#last = null;
        this.#done();
      });
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => {
      this.#cell = null;
      this.#draw();
    });
    canvas.addEventListener("focus", () => {
      if (!canvas.matches(":focus-visible")) return;
      this.#cell = { row: 0, column: 0 };
      this.#draw();
    });
  }

  #key(event) {
    const [rows, columns] = this.#grid;
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      this.#undo();
    } else if (move) {
      const { row, column } = this.#cell ?? { row: -move[0], column: -move[1] };
      const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
      this.#cell = { row: within(row + move[0], rows), column: within(column + move[1], columns) };
      this.#tell();
    } else if (event.key === " " && this.#cell) {
      const { row, column } = this.#cell;
      const [high, wide] = [this.mask.side / rows, this.mask.side / columns];
      const from = { x: Math.ceil(column * wide), y: Math.ceil(row * high) };
      const to = { x: Math.ceil((column + 1) * wide), y: Math.ceil((row + 1) * high) };
      const taken = this.mask.cells(rows, columns)[row * columns + column];
      this.#remember();
      this.mask.rectangle(from, to, taken ? 0 : 1);
      this.changed();
      this.#tell();
    } else {
      return;
    }
    event.preventDefault();
    this.#draw();
  }

  #tell() {
    const { row, column } = this.#cell;
    const taken = this.mask.cells(...this.#grid)[row * this.#grid[1] + column];
    const state = this.over ? ["stays", "will be redrawn"] : ["empty", "painted"];
    announce(`Row ${row + 1}, column ${column + 1}: ${state[taken]}`);
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    const scale = this.mask.side / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  #stroke(to) {
    if (this.#tool !== "rectangle") {
      const radius = (Number(this.#size.value) * this.mask.side) / 100;
      this.mask.line(this.#last, to, radius, this.#tool === "brush" ? 1 : 0);
    }
    this.#last = to;
    this.#draw();
  }

  #remember() {
    this.#past.push(this.mask.bits.slice());
    if (this.#past.length > UNDOABLE) this.#past.shift();
  }

  #undo() {
    const bits = this.#past.pop();
    if (bits) this.mask.bits = bits;
    this.#done();
  }

  #done() {
    this.#draw();
    this.changed();
  }

  // Many strokes come between two frames; one drawing shows them all.
  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    const context = this.#canvas.getContext("2d");
    const [rows, columns] = this.#grid;
    const [high, wide] = [SHARPNESS / rows, SHARPNESS / columns];
    context.clearRect(0, 0, SHARPNESS, SHARPNESS);
    context.imageSmoothingEnabled = false;
    if (this.over) {
      context.fillStyle = this.#stripes(context);
      this.mask.cells(rows, columns).forEach((taken, place) => {
        if (!taken) return;
        context.fillRect((place % columns) * wide, Math.floor(place / columns) * high, wide, high);
      });
    }
    context.drawImage(this.#painted(), 0, 0, SHARPNESS, SHARPNESS);
    if (this.over || this.#cell) {
      context.lineWidth = 1;
      context.strokeStyle = "rgb(128 128 128 / 35%)";
      for (let row = 1; row < rows; row += 1) context.strokeRect(-9, row * high, SHARPNESS + 18, 0);
      for (let column = 1; column < columns; column += 1) context.strokeRect(column * wide, -9, 0, SHARPNESS + 18);
    }
    const outline = (x, y, width, height) => {
      for (const [colour, line] of [["#fff", 8], ["#111", 4]]) {
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.strokeRect(x, y, width, height);
      }
    };
    if (this.#cell) outline(this.#cell.column * wide + 4, this.#cell.row * high + 4, wide - 8, high - 8);
    if (this.#last && this.#tool === "rectangle") {
      const scale = SHARPNESS / this.mask.side;
      const { x, y } = this.#start;
      outline(x * scale, y * scale, (this.#last.x - x) * scale, (this.#last.y - y) * scale);
    }
  }

  #painted() {
    const { side, bits } = this.mask;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const pixels = new ImageData(side, side);
    const colour = this.over ? [224, 30, 120, 165] : [17, 17, 17, 255];
    bits.forEach((bit, place) => bit && pixels.data.set(colour, place * 4));
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  #stripes(context) {
    if (this.#style) return this.#style;
    const tile = document.createElement("canvas");
    tile.width = tile.height = 16;
    const pen = tile.getContext("2d");
    pen.fillStyle = "rgb(20 24 22 / 45%)";
    pen.fillRect(0, 0, 16, 16);
    pen.strokeStyle = "rgb(255 255 255 / 85%)";
    pen.lineWidth = 3;
    for (const shift of [-16, 0, 16]) {
      pen.moveTo(shift - 2, 18);
      pen.lineTo(shift + 18, -2);
    }
    pen.stroke();
    this.#style = context.createPattern(tile, "repeat");
    return this.#style;
  }
}
