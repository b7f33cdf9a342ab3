// Things and where they go: rectangles dragged on a square, and a list of them for the keyboard.

import { announce, button, icon, make } from "./element.js";

const LARGEST = 255;
const FIRST = [64, 64, 192, 192];
const NONE = "No box yet: drag one on the square, or add one and type its numbers.";
const SIDES = [["left", 0], ["top", 1], ["right", 2], ["bottom", 3]];

/** Named boxes in 0..255. */
export class Boxes {
  #stage = make("div", { class: "stage paper boxes-stage" });
  #list = make("ol", { class: "boxes-list" });
  #empty = make("p", { class: "hint" }, NONE);
  #drag = null;

  /**
   * @param {HTMLElement} place
   * @param {{most: number, changed: () => void}} options
   */
  constructor(place, { most, changed }) {
    this.most = most;
    this.changed = changed;
    /** @type {{name: string, box: number[]}[]} */
    this.boxes = [];
    const add = button("Add a box", () => this.#add([...FIRST]));
    place.append(this.#stage, this.#empty, this.#list, add);
    this.#listen();
  }

  /**
   * Take other boxes.
   * @param {{name: string, box: number[]}[]} boxes
   */
  set(boxes) {
    const some = boxes.slice(0, this.most);
    this.boxes = some.map(({ name, box }) => ({ name, box: box.map(inside) }));
    this.#list.replaceChildren(...this.boxes.map((one) => this.#row(one)));
    this.#draw();
  }

  #add(box) {
    if (this.boxes.length >= this.most) {
      announce(`No more than ${this.most} boxes.`);
      return;
    }
    const one = { name: "", box };
    this.boxes.push(one);
    const row = this.#row(one);
    this.#list.append(row);
    row.querySelector("input").focus();
    this.#draw();
    this.changed();
  }

  #row(one) {
    const name = make("input", {
      class: "box-name", value: one.name, placeholder: "red fox", "aria-label": "Thing in the box",
    });
    name.addEventListener("input", () => {
      one.name = name.value;
      this.#draw();
      this.changed();
    });
    const numbers = SIDES.map(([side, place]) => {
      const range = { min: 0, max: LARGEST, step: 1 };
      const field = make("input", { type: "number", ...range, value: one.box[place] });
      field.addEventListener("input", () => {
        one.box[place] = inside(field.valueAsNumber || 0);
        this.#draw();
        this.changed();
      });
      return make("label", {}, make("span", {}, side), field);
    });
    const row = make("li", {}, make("span", { class: "swatch", "aria-hidden": "true" }), name,
      button(icon("close"), () => {
        this.boxes.splice(this.boxes.indexOf(one), 1);
        row.remove();
        this.#draw();
        this.changed();
      }, { class: "icon-button", "aria-label": "Remove this box" }),
      make("div", { class: "box-numbers" }, ...numbers));
    return row;
  }

  #draw() {
    this.#empty.hidden = this.boxes.length > 0;
    const shown = this.#drag ? [...this.boxes, { name: "", box: this.#drag }] : this.boxes;
    this.#stage.replaceChildren(...shown.map(({ name, box }) => {
      const [left, right] = [box[0], box[2]].sort((a, b) => a - b);
      const [top, bottom] = [box[1], box[3]].sort((a, b) => a - b);
      const element = make("div", { class: "box" }, make("span", {}, name));
      const share = (value) => `${(value / (LARGEST + 1)) * 100}%`;
      element.style.left = share(left);
      element.style.top = share(top);
      element.style.width = share(right - left + 1);
      element.style.height = share(bottom - top + 1);
      return element;
    }));
  }

  #listen() {
    const stage = this.#stage;
    const place = (event) => {
      const { left, top, width } = stage.getBoundingClientRect();
      const scale = (LARGEST + 1) / width;
      return [inside((event.clientX - left) * scale), inside((event.clientY - top) * scale)];
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      stage.setPointerCapture(event.pointerId);
      this.#drag = [...place(event), ...place(event)];
    });
    stage.addEventListener("pointermove", (event) => {
      if (!this.#drag) return;
      this.#drag.splice(2, 2, ...place(event));
      this.#draw();
    });
    stage.addEventListener("pointerup", () => {
      const [x0, y0, x1, y1] = this.#drag ?? [0, 0, 0, 0];
      this.#drag = null;
      const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
      if (box[2] - box[0] > 8 && box[3] - box[1] > 8) this.#add(box);
      else this.#draw();
    });
    stage.addEventListener("pointercancel", () => {
      this.#drag = null;
      this.#draw();
    });
  }
}

function inside(value) {
  return Math.min(Math.max(Math.round(value), 0), LARGEST);
}
