// Candidates: empty grids of codes at first, filled row by row, in the end the best one first.

import { actionButtons } from "./actions.js";
import { at, button, make, moves } from "./element.js";
import { urlOf } from "./picture.js";
import { view } from "./viewer.js";

const MATCH = "How near it is to the words: CLIP's cosine";
const SLIDE = { duration: 350, easing: "cubic-bezier(.2, .7, .2, 1)" };

/** The pictures of one request. */
export class Gallery {
  #list = at("gallery");
  #words = "";
  #cards = [];

  /** @param {[number, number]} grid Rows and columns of codes. */
  constructor([rows, columns]) {
    this.#list.style.setProperty("--rows", rows);
    this.#list.style.setProperty("--columns", columns);
  }

  /** Take all pictures away. */
  clear() {
    this.#cards = [];
    this.#list.replaceChildren();
  }

  /**
   * Make room.
   * @param {string} words What is drawn.
   * @param {number} count
   * @param {number} seed Of the first one.
   */
  begin(words, count, seed) {
    this.#words = words;
    this.#cards = Array.from({ length: count }, (_, place) => makeCard(seed + place));
    this.#list.dataset.count = count;
    this.#list.setAttribute("aria-busy", "true");
    this.#list.style.setProperty("--done", 0);
    this.#list.replaceChildren(...this.#cards.map((card) => card.element));
  }

  /**
   * Show the rows that are drawn.
   * @param {{rows: number, of: number, pictures: string[]}} event
   */
  rows({ rows, of, pictures }) {
    this.#list.style.setProperty("--rows", of);
    this.#list.style.setProperty("--done", rows);
    pictures.forEach((picture, place) => {
      const { image, element } = this.#cards[place] ?? {};
      if (!image) return;
      image.src = urlOf(picture);
      image.alt = `Being drawn: ${this.#words}`;
      element.classList.add("growing");
    });
  }

  /**
   * Show the finished pictures, the best first.
   * @param {{picture: string, seed: number, score: number|null}[]} pictures
   */
  finish(pictures) {
    const place = ({ seed, element }) => [seed, element.getBoundingClientRect()];
    const before = new Map(this.#cards.map(place));
    const made = new Map(this.#cards.map((card) => [card.seed, card]));
    this.#cards = pictures.map((drawn, rank) => {
      const card = made.get(drawn.seed) ?? makeCard(drawn.seed);
      complete(card, drawn, rank, this.#words, () => view(pictures, rank, this.#words));
      return card;
    });
    this.#list.dataset.count = pictures.length;
    this.#list.setAttribute("aria-busy", "false");
    this.#list.replaceChildren(...this.#cards.map((card) => card.element));
    if (!moves()) return;
    for (const { seed, element } of this.#cards) {
      const from = before.get(seed);
      const to = element.getBoundingClientRect();
      if (!from || (from.x === to.x && from.y === to.y)) continue;
      const moved = `translate(${from.x - to.x}px, ${from.y - to.y}px)`;
      element.animate([{ transform: moved }, { transform: "none" }], SLIDE);
    }
  }

  /** Leave what was drawn until now, and no more waiting. */
  stop() {
    this.#list.setAttribute("aria-busy", "false");
    for (const { element } of this.#cards) element.classList.add("stopped");
  }
}

function makeCard(seed) {
  const image = make("img", { alt: "", draggable: "true" });
  const codes = make("span", { class: "codes", "aria-hidden": "true" });
  const frame = make("div", { class: "frame" }, codes, image);
  const facts = make("p", { class: "card-facts" }, make("span", {}, `seed ${seed}`));
  return { seed, image, frame, facts, element: make("li", { class: "card" }, frame, facts) };
}

function complete({ image, frame, facts, element, seed }, drawn, rank, words, open) {
  const called = `picture ${rank + 1}`;
  element.classList.remove("growing", "stopped");
  element.classList.add("done");
  image.src = urlOf(drawn.picture);
  image.alt = `${words}, seed ${seed}`;
  frame.replaceChildren(button(image, open, {
    class: "larger", "aria-label": `Enlarge ${called}: ${words}, seed ${seed}`,
  }));
  facts.replaceChildren(make("span", {}, `seed ${seed}`));
  if (drawn.score !== null) {
    facts.append(make("span", { title: MATCH }, `match ${drawn.score.toFixed(2)}`));
  }
  element.querySelector(".card-acts")?.remove();
  element.append(make("div", { class: "card-acts" }, ...actionButtons(drawn, words, called)));
}

