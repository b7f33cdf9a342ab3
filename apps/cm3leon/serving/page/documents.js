// What was looked up and stands before the prompt: each with its score, and switched on or off.

import { Refused, findDocuments } from "./api.js";
import { announce, at, make } from "./element.js";
import { urlOf } from "./picture.js";

const MORE = 4;

/** The documents of the last request. */
export class Documents {
  #shown = [];
  #on = new Set();
  #prompt = null;
  #switched = false;
  #pinned = null;
  #most;

  /**
   * @param {object} how
   * @param {number} how.most How many the run looks up; 0 where it has no memory.
   * @param {(prompt: string, keys: string[], switched: boolean) => void} how.again
   * @param {(problem: Error) => void} how.failed
   */
  constructor({ most, again, failed }) {
    this.#most = most;
    at("draw-again").addEventListener("click", () => {
      again(this.#prompt, this.#keys(), this.#switched);
    });
    at("documents-more").addEventListener("click", () => this.#more().catch((problem) => {
      if (!(problem instanceof Refused)) throw problem;
      failed(problem);
    }));
  }

  /**
   * The keys to send with a prompt; null where the run shall look them up.
   * @param {string} prompt
   * @returns {string[]|null}
   */
  chosen(prompt) {
    if (this.#pinned?.prompt === prompt) return this.#pinned.keys;
    return this.#switched && this.#prompt === prompt ? this.#keys() : null;
  }

  /**
   * Keep keys that a link, or the history, gave for a prompt.
   * @param {string} prompt
   * @param {string[]|null} keys
   */
  pin(prompt, keys) {
    this.#switched = false;
    this.#pinned = keys && { prompt, keys };
  }

  /** Let the run look up documents again. */
  unpin() {
    this.pin("", null);
  }

  /** Take them all away. */
  clear() {
    this.#shown = [];
    this.#prompt = null;
    at("documents").hidden = true;
  }

  /**
   * Show what stands before a prompt.
   * @param {any[]} documents The best first.
   * @param {object} about
   * @param {string} about.prompt
   * @param {string[]|null} about.asked The keys that were sent.
   * @param {boolean} about.switches Whether they can be switched on and off.
   */
  show(documents, { prompt, asked, switches }) {
    const keys = documents.map((one) => one.key);
    const known = new Set(this.#shown.map((one) => one.key));
    const same = asked && prompt === this.#prompt && keys.every((key) => known.has(key));
    if (!same) this.#shown = documents;
    this.#on = new Set(keys);
    this.#prompt = prompt;
    this.#switched = Boolean(asked);
    this.#pinned = null;
    this.#draw(switches);
  }

  #keys() {
    return this.#shown.map((one) => one.key).filter((key) => this.#on.has(key));
  }

  async #more() {
    const prompt = this.#prompt;
    const found = await findDocuments(prompt, Math.min(this.#shown.length + MORE, this.#most));
    if (prompt !== this.#prompt) return;
    const known = new Set(this.#shown.map((one) => one.key));
    const fresh = found.filter((one) => !known.has(one.key));
    this.#shown = [...this.#shown, ...fresh];
    this.#draw(true);
    announce(fresh.length ? `${fresh.length} more found, switched off.` : "There are no more.");
  }

  #draw(wanted) {
    const switches = wanted && this.#most > 0;
    at("documents").hidden = !this.#shown.length && !switches;
    at("draw-again").hidden = !switches;
    at("documents-more").hidden = !switches || this.#shown.length >= this.#most;
    at("documents-list").replaceChildren(...this.#shown.map((one) => this.#row(one, switches)));
    this.#count();
  }

  #row({ key, caption, score, picture, taught }, switches) {
    const box = make("input", {
      type: "checkbox", role: "switch", "aria-label": `Use “${caption}”`,
    });
    const badge = taught ? make("span", { class: "badge" }, "taught") : null;
    const row = make("li", { class: "document" },
      make("img", { src: urlOf(picture), alt: caption, width: 64, height: 64 }),
      make("div", {},
        make("p", { class: "caption" }, caption),
        make("p", { class: "facts" }, `score ${score.toFixed(2)}`, badge)),
      switches ? make("label", { class: "switch" }, box) : null);
    box.checked = this.#on.has(key);
    row.classList.toggle("off", !box.checked);
    box.addEventListener("change", () => {
      this.#on[box.checked ? "add" : "delete"](key);
      row.classList.toggle("off", !box.checked);
      this.#switched = true;
      this.#count();
    });
    return row;
  }

  #count() {
    const [on, all] = [this.#on.size, this.#shown.length];
    const which = this.#switched ? ` with ${on} of ${all}` : "";
    at("draw-again").textContent = `Draw again${which}`;
  }
}
