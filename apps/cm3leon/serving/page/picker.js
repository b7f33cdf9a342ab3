// The picture that the request is about: dropped, pasted, chosen, or one that is on the page already.

import { findDocuments } from "./api.js";
import { at, make } from "./element.js";
import { readPicture, sentPicture, urlOf } from "./picture.js";

const OFFERED = 6;

/** One picture, shared by all tabs that need one. */
export class Picker {
  #run;
  #changed;
  #offered = false;

  /**
   * @param {any} run What /api/run says.
   * @param {(picture: Picture|null) => void} changed
   */
  constructor(run, changed) {
    this.#run = run;
    this.#changed = changed;
    /** @type {Picture|null} */
    this.picture = null;
    this.box = at("picker");
    const file = at("file");
    at("choose").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      this.#take(file.files);
      file.value = "";
    });
    at("unpick").addEventListener("click", () => {
      this.set(null);
      at("choose").focus();
    });
    const drop = at("drop");
    drop.addEventListener("dragover", (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
    for (const end of ["dragleave", "drop"]) drop.addEventListener(end, () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.#take(event.dataTransfer.files);
    });
    document.addEventListener("paste", (event) => {
      if (this.box.offsetParent && event.clipboardData.files.length) {
        event.preventDefault();
        this.#take(event.clipboardData.files);
      }
    });
  }

  /**
   * Take a picture, or none.
   * @param {Picture|null} picture
   */
  set(picture) {
    this.picture = picture;
    const shown = at("picked");
    shown.hidden = !picture;
    if (picture) {
      shown.src = picture.url;
      shown.alt = `Your picture: ${picture.name}`;
    } else {
      shown.removeAttribute("src");
    }
    this.box.classList.toggle("full", Boolean(picture));
    at("unpick").hidden = !picture;
    at("choose").textContent = picture ? "Replace" : "Choose a file";
    at("drop-words").hidden = Boolean(picture);
    this.fail("");
    this.#changed(picture);
  }

  /**
   * Take a picture that is on the page.
   * @param {string} base64
   * @param {string} words What it shows.
   */
  async use(base64, words) {
    this.set(await sentPicture(base64, this.#run, { name: words || "a picture drawn here", words }));
  }

  /**
   * Say what is wrong with the picture.
   * @param {string} words
   */
  fail(words) {
    at("picker-error").textContent = words;
  }

  /** Offer pictures of the memory to someone who has none at hand; looked up once. */
  async offer() {
    if (this.#offered || !this.#run.memory) return;
    this.#offered = true;
    const prompts = this.#run.examples.slice(0, OFFERED);
    try {
      const found = await Promise.all(prompts.map((prompt) => findDocuments(prompt, 1)));
      const different = new Map(found.flat().map((one) => [one.key, one]));
      at("offers-list").replaceChildren(...[...different.values()].map((one) => this.#offer(one)));
      at("offers").hidden = !different.size;
    } catch {
      at("offers").hidden = true; // an extra: without it, a picture can still be chosen
    }
  }

  #offer({ caption, picture }) {
    const image = make("img", { src: urlOf(picture), alt: caption, width: 48, height: 48 });
    return make("li", {}, make("button", { type: "button", title: caption, on: { click: () => this.use(picture, caption) } }, image));
  }

  async #take(files) {
    const [file] = files;
    if (!file) return;
    try {
      this.set(await readPicture(file, this.#run, { name: file.name }));
    } catch (problem) {
      this.fail(problem.message);
    }
  }
}

