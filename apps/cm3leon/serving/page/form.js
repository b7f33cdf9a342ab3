// The form: what the tab's fields, the picture, the paint and the settings ask for together.

import { Boxes } from "./boxes.js";
import { at } from "./element.js";
import { Painter } from "./paint.js";
import { Picker } from "./picker.js";
import { Picture } from "./picture.js";
import {
  fillSettings, readSettings, showSettings, startSettings, wrongSetting,
} from "./settings.js";
import { TASKS } from "./tasks.js";

// Cells of a sketch by keyboard: as fine as lines need.
const SKETCHED = [32, 32];

/** What is asked. */
export class Form {
  #documents;
  #run;
  task = "draw";

  /**
   * @param {{run: any, documents: import("./documents.js").Documents, submit: () => void}} parts
   */
  constructor({ run, documents, submit }) {
    this.#run = run;
    this.#documents = documents;
    const changed = () => this.#say("");
    this.picker = new Picker(run, (picture) => this.#pictureChanged(picture));
    this.mask = new Painter(at("mask-painter"), {
      kind: "mask", grid: run.grid, label: "Paint what to redraw", changed,
    });
    this.sketch = new Painter(at("sketch-painter"), {
      kind: "sketch", grid: SKETCHED, label: "Sketch", changed,
    });
    this.boxes = new Boxes(at("boxes"), { most: run.limits.boxes, changed });
    startSettings(run, changed);
    const features = run.structure.map((name) => new Option(name, name));
    this.#field("structure", "feature").append(...features);
    at("question").hidden = !run.can.includes("ask");
    const form = at("form");
    for (const field of form.querySelectorAll("textarea, .panel input:not([type])")) {
      field.maxLength = run.limits.prompt_characters;
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
    form.addEventListener("keydown", (event) => {
      const written = event.target.matches("textarea") && event.key === "Enter";
      if (!written || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    at("panel-structure").addEventListener("change", () => this.#showSlots());
    at("panel-describe").addEventListener("input", () => this.#showSettings());
    form.addEventListener("input", changed);
  }

  /**
   * Show the fields of a task.
   * @param {string} task
   */
  choose(task) {
    this.task = task;
    at("send").textContent = TASKS[task].verb;
    at("send-row").hidden = task === "teach";
    at("new-line").hidden = !at(`panel-${task}`).querySelector("textarea");
    this.#say("");
    this.#showSlots();
    this.#showSettings();
  }

  /**
   * What is asked now; a seed is rolled where none was given.
   * @returns {import("./tasks.js").Asked}
   */
  current() {
    const fields = {};
    for (const field of this.#fields(this.task)) {
      if (field.type !== "radio" || field.checked) fields[field.name] = field.value.trim();
    }
    if (this.task === "boxes") {
      const tidy = ({ name, box }) => ({ name: name.trim(), box: sorted(box) });
      fields.boxes = this.boxes.boxes.map(tidy);
    }
    const sketched = fields.guide === "sketch";
    const picture = sketched ? this.sketch.picture() : this.picker.picture?.url;
    return {
      task: this.task,
      fields,
      settings: readSettings(),
      documents: this.task === "draw" ? this.#documents.chosen(fields.prompt) : null,
      picture: TASKS[this.task].picture ? picture ?? null : null,
      mask: this.task === "infill" ? this.mask.picture() : null,
    };
  }

  /**
   * Whether something is missing or wrong; says so, and goes there.
   * @returns {boolean}
   */
  wrong() {
    const found = this.#problem();
    this.#say(found?.words ?? "", found?.field);
    found?.field.focus();
    return Boolean(found);
  }

  /**
   * Mark the field that the service refused.
   * @param {string|null} name
   */
  refuse(name) {
    const settings = at("settings").querySelectorAll("[name]");
    const field = [...this.#fields(this.task), ...settings].find((one) => one.name === name);
    field?.setAttribute("aria-invalid", "true");
  }

  /**
   * Put back what was asked, on the tab that is chosen already.
   * @param {import("./tasks.js").Asked} asked
   */
  async fill(asked) {
    for (const field of this.#fields(this.task)) {
      const value = asked.fields[field.name] ?? "";
      const known = !field.options || [...field.options].some((one) => one.value === value);
      if (field.type === "radio") field.checked = field.value === (value || "picture");
      else if (known) field.value = value;
    }
    if (this.task === "boxes") this.boxes.set(asked.fields.boxes ?? []);
    fillSettings(asked.settings);
    if (this.task === "draw") this.#documents.pin(asked.fields.prompt ?? "", asked.documents);
    this.#showSlots();
    this.#showSettings();
    if (!asked.picture) return;
    if (asked.fields.guide === "sketch") {
      await this.sketch.restore(asked.picture);
      return;
    }
    const image = new Image();
    image.src = asked.picture;
    await image.decode();
    this.picker.set(new Picture(asked.picture, image.naturalWidth));
    if (asked.mask) await this.mask.restore(asked.mask);
  }

  /**
   * Take a picture that is on the page, and what it shows.
   * @param {string} picture In base64.
   * @param {string} words
   */
  async use(picture, words) {
    const found = at(`panel-${this.task}`).querySelector("[type=radio][value=picture]");
    if (found) found.checked = true;
    await this.picker.use(picture, words);
    this.write(this.task, "prompt", words);
    this.write(this.task, "question", "");
    this.#showSettings();
  }

  /**
   * Write a text into a field of a tab.
   * @param {string} task
   * @param {string} name
   * @param {string} text
   */
  write(task, name, text) {
    const field = this.#field(task, name);
    if (field) field.value = text;
  }

  /**
   * Show that a request is under way, or none.
   * @param {boolean} on
   */
  busy(on) {
    const [shown, hidden] = on ? [at("cancel"), at("send")] : [at("send"), at("cancel")];
    const focused = document.activeElement === hidden;
    shown.hidden = false;
    if (focused) shown.focus();
    hidden.hidden = true;
  }

  #problem() {
    const missing = this.#missingWords() ?? this.#wrongBox() ?? this.#missingPicture();
    return missing ?? wrongSetting();
  }

  #missingWords() {
    for (const [name, words] of Object.entries(TASKS[this.task].needs)) {
      const field = this.#field(this.task, name);
      if (!field.value.trim()) return { field, words };
    }
    return null;
  }

  #wrongBox() {
    if (this.task !== "boxes") return null;
    const { boxes } = this.boxes;
    const all = (selector) => at("boxes").querySelectorAll(selector);
    if (!boxes.length) return { field: all("button")[0], words: "Add a box first." };
    const nameless = boxes.findIndex(({ name }) => !name.trim());
    if (nameless >= 0) return { field: all(".box-name")[nameless], words: "Name each box." };
    const flat = boxes.findIndex(({ box }) => box[0] === box[2] || box[1] === box[3]);
    if (flat < 0) return null;
    const field = all(".box-numbers")[flat].querySelector("input");
    return { field, words: "A box needs a width and a height." };
  }

  #missingPicture() {
    if (!TASKS[this.task].picture) return null;
    const canvas = (id) => at(id).querySelector("canvas");
    if (this.#sketching()) {
      const field = canvas("sketch-painter");
      return this.sketch.mask.empty ? { field, words: "Sketch something first." } : null;
    }
    if (!this.picker.picture) return { field: at("choose"), words: "A picture is needed first." };
    if (this.task !== "infill" || !this.mask.mask.empty) return null;
    return { field: canvas("mask-painter"), words: "Paint over what shall be redrawn." };
  }

  #say(words, field) {
    at("form-error").textContent = words;
    for (const marked of at("form").querySelectorAll("[aria-invalid]")) {
      marked.removeAttribute("aria-invalid");
    }
    if (field?.matches("input, textarea")) field.setAttribute("aria-invalid", "true");
  }

  #sketching() {
    const sketch = at("panel-structure").querySelector("[value=sketch]");
    return this.task === "structure" && sketch.checked;
  }

  // The one picker goes to the tab that is open.
  #showSlots() {
    const slot = at(`panel-${this.task}`).querySelector("[data-slot=picture]");
    this.picker.box.hidden = !slot || this.#sketching();
    this.picker.box.classList.toggle("compact", this.task === "infill");
    if (slot) {
      slot.hidden = this.picker.box.hidden;
      slot.append(this.picker.box);
      if (!this.#sketching()) this.picker.offer();
    }
    at("mask-painter").hidden = !this.picker.picture;
    at("sketch-painter").hidden = !this.#sketching();
  }

  #showSettings() {
    const asks = this.task === "describe" && this.#field("describe", "question").value.trim();
    showSettings(asks ? [] : TASKS[this.task].settings);
    if (this.task === "describe") at("send").textContent = asks ? "Ask" : "Describe";
  }

  #pictureChanged(picture) {
    this.mask.begin(picture);
    this.#say("");
    this.#showSlots();
  }

  #fields(task) {
    const fields = [...at(`panel-${task}`).querySelectorAll("[name]")];
    return fields.filter((field) => field.type !== "file");
  }

  #field(task, name) {
    return this.#fields(task).find((one) => one.name === name);
  }
}

function sorted([x0, y0, x1, y1]) {
  return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
}
