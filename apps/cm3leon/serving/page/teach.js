// Teaching: a picture and a name go into the memory of this visit; then it is drawn in new colours.

import { forget, taughtOnes, teach } from "./api.js";
import { announce, at, button, icon, make } from "./element.js";
import { urlOf } from "./picture.js";

const DRESSES = [["blue", "yellow"], ["red", "green"], ["purple", "white"], ["yellow", "blue"]];

/** The tab that teaches. */
export class Teaching {
  #picker;
  #draw;
  #failed;

  /**
   * @param {object} parts
   * @param {import("./picker.js").Picker} parts.picker
   * @param {(prompt: string) => void} parts.draw
   * @param {(problem: Error) => void} parts.failed
   */
  constructor({ picker, draw, failed }) {
    this.#picker = picker;
    this.#draw = draw;
    this.#failed = failed;
    const name = at("panel-teach").querySelector("[name=name]");
    at("teach").addEventListener("click", () => this.#teach(name));
    name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.#teach(name);
    });
  }

  /** Show what was taught in this visit; the service may have forgotten it. */
  async show() {
    try {
      const known = await taughtOnes();
      at("taught").hidden = !known.length;
      at("taught-list").replaceChildren(...known.map((one) => this.#item(one)));
    } catch (problem) {
      this.#failed(problem);
    }
  }

  async #teach(field) {
    const name = field.value.trim();
    const { picture } = this.#picker;
    if (!picture) {
      this.#picker.fail("First show it a picture.");
      at("choose").focus();
      return;
    }
    if (!name) {
      at("teach-error").textContent = "Give it a name.";
      field.focus();
      return;
    }
    at("teach-error").textContent = "";
    at("teach").disabled = true;
    try {
      await teach(picture.url, name);
      this.#suggest(name);
      await this.show();
      announce(`${name} is in the memory.`);
      at("teach-prompts").querySelector("button").focus();
    } catch (problem) {
      this.#failed(problem);
    } finally {
      at("teach").disabled = false;
    }
  }

  #suggest(name) {
    at("teach-wait").textContent = `“${name}” is in the memory. Now draw it:`;
    at("teach-prompts").replaceChildren(...DRESSES.map(([thing, paper]) => {
      const prompt = `${thing} ${name}${paper === "white" ? "" : ` on ${paper}`}`;
      return button(prompt, () => this.#draw(prompt));
    }));
  }

  #item({ key, caption, picture }) {
    return make("li", {},
      make("img", { src: urlOf(picture), alt: "", width: 48, height: 48 }),
      make("span", {}, caption),
      button("Draw", () => {
        this.#suggest(caption);
        at("teach-prompts").querySelector("button").focus();
      }, { class: "quiet", "aria-label": `Draw ${caption}` }),
      button(icon("close"), () => this.#forget(key), {
        class: "icon-button", "aria-label": `Forget ${caption}`,
      }));
  }

  async #forget(key) {
    try {
      await forget(key);
      await this.show();
    } catch (problem) {
      this.#failed(problem);
    }
  }
}
