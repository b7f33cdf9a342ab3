// Painting on a square: brush, eraser and rectangle by pointer, cells of a grid by keyboard.

import { announce, button, make } from "./element.js";
import { Mask } from "./mask.js";
import { drawPaint } from "./overlay.js";

const SHARPNESS = 512;
const PLAIN_SIDE = 256;
const UNDOABLE = 20;
const WHITE = [255, 255, 255];
const BLACK = [0, 0, 0];
const HINTS = {
  mask: "Striped cells will be redrawn. By keyboard: arrows move over the cells, space takes one.",
  sketch: "By keyboard: arrows move over small cells, space fills one.",
};
const STATES = { mask: ["stays", "will be redrawn"], sketch: ["empty", "painted"] };

/** A place to paint: a mask over a picture, or a sketch on white. */
export class Painter {
  #canvas;
  #image = make("img", { alt: "", draggable: "false" });
  #size;
  #grid;
  #kind;
  #tool = "brush";
  #cell = null;
  #start = null;
  #last = null;
  #past = [];
  #frame = 0;

  /**
   * @param {HTMLElement} place
   * @param {{kind: "mask"|"sketch", grid: [number, number], label: string, changed: () => void}}
   *   options `grid`: rows and columns of the cells.
   */
  constructor(place, { kind, grid, label, changed }) {
    this.#kind = kind;
    this.#grid = grid;
    this.changed = changed;
    this.mask = new Mask(PLAIN_SIDE);
    const hint = `${kind}-hint`;
    this.#canvas = make("canvas", {
      width: SHARPNESS, height: SHARPNESS, tabindex: 0, role: "application",
      "aria-label": label, "aria-describedby": hint,
    });
    const stage = make("div", { class: "stage" }, this.#image, this.#canvas);
    stage.classList.toggle("paper", kind === "sketch");
    const words = make("p", { class: "hint", id: hint }, HINTS[kind]);
    place.append(make("div", { class: "painter" }, this.#tools(), stage, words));
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
    this.mask = new Mask(picture?.side ?? PLAIN_SIDE);
    this.#past = [];
    this.#draw();
  }

  /** @returns {string} A data: URL: a mask's paint white on black, a sketch's black on white. */
  picture() {
    return this.#masks ? this.mask.picture(WHITE, BLACK) : this.mask.picture(BLACK, WHITE);
  }

  /**
   * Put back what was painted once.
   * @param {string} url What `picture` gave.
   */
  async restore(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const side = image.naturalWidth;
    const canvas = make("canvas", { width: side, height: side });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, side, side);
    this.mask = new Mask(side);
    const painted = (_, place) => Number(data[place * 4] > 127 === this.#masks);
    this.mask.bits = this.mask.bits.map(painted);
    this.#past = [];
    this.#draw();
  }

  get #masks() {
    return this.#kind === "mask";
  }

  #tools() {
    const kinds = [["brush", "Brush"], ["eraser", "Eraser"]];
    if (this.#masks) kinds.push(["rectangle", "Rectangle"]);
    const choice = make("div", { class: "segmented", role: "group", "aria-label": "Tool" });
    const choose = (name) => {
      this.#tool = name;
      kinds.forEach(([kind], place) => {
        choice.children[place].setAttribute("aria-pressed", String(kind === name));
      });
    };
    choice.append(...kinds.map(([kind, label]) => button(label, () => choose(kind))));
    choose("brush");
    const widths = { min: 1, max: 12, step: 1, value: this.#masks ? 5 : 1 };
    this.#size = make("input", { type: "range", ...widths });
    const act = (label, change) => button(label, () => {
      this.#remember();
      change();
      this.#done();
    }, { class: "quiet" });
    const acts = make("div", { class: "paint-acts" },
      button("Undo", () => this.#undo(), { class: "quiet" }));
    if (this.#masks) {
      acts.append(act("All", () => this.mask.fill(1)), act("Invert", () => this.mask.invert()));
    }
    acts.append(act("Clear", () => this.mask.fill(0)));
    const size = make("label", { class: "size" }, make("span", {}, "Size"), this.#size);
    return make("div", { class: "paint-tools" }, choice, size, acts);
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
      const moves = event.getCoalescedEvents?.() ?? [];
      for (const one of moves.length ? moves : [event]) this.#stroke(this.#place(one));
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
    canvas.addEventListener("focus", () => {
      if (canvas.matches(":focus-visible")) this.#cell = { row: 0, column: 0 };
      this.#draw();
    });
    canvas.addEventListener("blur", () => {
      this.#cell = null;
      this.#draw();
    });
  }

  #key(event) {
    const move = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    }[event.key];
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      this.#undo();
    } else if (move) {
      const { row, column } = this.#cell ?? { row: -move[0], column: -move[1] };
      const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
      const [rows, columns] = this.#grid;
      this.#cell = { row: within(row + move[0], rows), column: within(column + move[1], columns) };
      this.#tell();
    } else if (event.key === " " && this.#cell) {
      this.#toggle();
      this.#tell();
    } else {
      return;
    }
    event.preventDefault();
    this.#draw();
  }

  #toggle() {
    const [rows, columns] = this.#grid;
    const { row, column } = this.#cell;
    const corner = (down, right) => ({
      x: Math.ceil((right * this.mask.side) / columns),
      y: Math.ceil((down * this.mask.side) / rows),
    });
    const value = this.#taken() ? 0 : 1;
    this.#remember();
    this.mask.rectangle(corner(row, column), corner(row + 1, column + 1), value);
    this.changed();
  }

  #taken() {
    const { row, column } = this.#cell;
    return this.mask.cells(...this.#grid)[row * this.#grid[1] + column];
  }

  #tell() {
    const { row, column } = this.#cell;
    const state = STATES[this.#kind][this.#taken()];
    announce(`Row ${row + 1}, column ${column + 1}: ${state}`);
  }

  #place(event) {
    const { left, top, width } = this.#canvas.getBoundingClientRect();
    const scale = this.mask.side / width;
    return { x: (event.clientX - left) * scale, y: (event.clientY - top) * scale };
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
    this.#frame = requestAnimationFrame(() => drawPaint(this.#canvas, {
      mask: this.mask,
      grid: this.#grid,
      over: this.#masks,
      cell: this.#cell,
      frame: this.#last && this.#tool === "rectangle" ? [this.#start, this.#last] : null,
    }));
  }
}
