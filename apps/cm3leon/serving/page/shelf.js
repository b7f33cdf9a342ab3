// The history as a row of small pictures.

import { at, announce, button, icon, make } from "./element.js";
import { urlOf } from "./picture.js";
import { titleOf } from "./tasks.js";

const FEW = 12;

/** What was made earlier; a press brings it back. */
export class Shelf {
  #history;
  #restore;
  #cleared = null;
  #all = false;

  /**
   * @param {import("./history.js").History} history
   * @param {(entry: import("./history.js").Entry) => void} restore
   */
  constructor(history, restore) {
    this.#history = history;
    this.#restore = restore;
    at("history-clear").addEventListener("click", () => {
      if (this.#cleared) this.#undo();
      else this.#clear();
    });
    at("history-all").addEventListener("click", () => {
      this.#all = true;
      this.show();
    });
  }

  /** Show what the history holds. */
  async show() {
    const entries = await this.#history.all();
    if (entries.length) this.#cleared = null;
    at("history").hidden = !entries.length && !this.#cleared;
    at("history-clear").textContent = this.#cleared ? "Cleared. Undo" : "Clear";
    const shown = this.#all ? entries : entries.slice(0, FEW);
    at("history-all").hidden = shown.length === entries.length;
    at("history-all").textContent = `Show all ${entries.length}`;
    at("history-list").replaceChildren(...shown.map((entry) => this.#item(entry)));
  }

  /**
   * Keep a result.
   * @param {Omit<import("./history.js").Entry, "run">} entry
   */
  async add(entry) {
    await this.#history.add(entry);
    await this.show();
  }

  #item(entry) {
    const title = titleOf(entry.asked);
    const picture = entry.result.pictures?.[0]?.picture ?? entry.asked.picture;
    const words = entry.result.texts?.[0]?.text ?? title;
    const image = make("img", { src: urlOf(picture), alt: "", width: 72, height: 72 });
    const open = button(image, () => this.#restore(entry), {
      class: "earlier", "aria-label": `Bring back: ${words}`,
      title: new Date(entry.when).toLocaleString(),
    });
    open.append(make("span", {}, words));
    return make("li", {}, open, button(icon("close"), async () => {
      await this.#history.remove(entry.id);
      await this.show();
    }, { class: "icon-button forget", "aria-label": `Remove from the history: ${words}` }));
  }

  async #clear() {
    this.#cleared = await this.#history.all();
    await this.#history.clear();
    await this.show();
    announce("The history is empty.");
  }

  async #undo() {
    const entries = this.#cleared;
    this.#cleared = null;
    for (const entry of entries.reverse()) await this.#history.add(entry);
    await this.show();
  }
}
