// The picture that the request is about: dropped, pasted, chosen, or one that is on the page.

import { findDocuments } from "./api.js";
import { at, button, make } from "./element.js";
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
    this.#listen();
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
    const name = words || "a picture drawn here";
    this.set(await sentPicture(base64, this.#run, { name, words }));
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

  // Anywhere on the page: a file that misses the frame must not replace the page.
  #listen() {
    const drop = at("drop");
    document.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      drop.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) drop.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      drop.classList.remove("over");
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      if (this.box.offsetParent) this.#take(event.dataTransfer.files);
    });
    document.addEventListener("paste", (event) => {
      const { files } = event.clipboardData;
      // A word processor copies a picture of its text, too: that is a text.
      const text = event.clipboardData.getData("text/plain");
      if (!this.box.offsetParent || !files.length || text) return;
      event.preventDefault();
      this.#take(files);
    });
  }

  #offer({ caption, picture }) {
    const image = make("img", { src: urlOf(picture), alt: caption, width: 48, height: 48 });
    return make("li", {}, button(image, () => this.use(picture, caption), { title: caption }));
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

