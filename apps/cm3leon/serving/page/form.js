// The form: what the tab's fields, the picture, the paint and the settings ask for together.

import { Boxes } from "./boxes.js";
import { at } from "./element.js";
import { Painter } from "./paint.js";
import { Picker } from "./picker.js";
import { Picture } from "./picture.js";
import { fillSettings, readSettings, showSettings, startSettings, wrongSetting } from "./settings.js";
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
      grid: run.grid, label: "Paint what to redraw", over: true, changed,
    });
    this.sketch = new Painter(at("sketch-painter"), { grid: SKETCHED, label: "Sketch", over: false, changed });
    this.boxes = new Boxes(at("boxes"), { most: run.limits.boxes ?? 16, changed });
    startSettings(run, changed);
    for (const name of run.structure ?? []) this.#field("structure", "feature").append(new Option(name, name));
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
    this.#say("");
    this.#showSlots();
    this.#showSettings();
  }

  /** @returns {import("./tasks.js").Asked} What is asked now; a seed is rolled where none was given. */
  current() {
    const fields = {};
    for (const field of this.#fields(this.task)) {
      if (field.type !== "radio" || field.checked) fields[field.name] = field.value.trim();
    }
    if (this.task === "boxes") {
      fields.boxes = this.boxes.boxes.map(({ name, box }) => ({ name: name.trim(), box: sorted(box) }));
    }
    const sketched = fields.lines === "sketch";
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
    const field = this.#fields(this.task).find((one) => one.name === name);
    field?.setAttribute("aria-invalid", "true");
  }

  /**
   * Put back what was asked, on the tab that is chosen already.
   * @param {import("./tasks.js").Asked} asked
   */
  async fill(asked) {
    for (const field of this.#fields(this.task)) {
      const value = asked.fields[field.name] ?? "";
      if (field.type === "radio") field.checked = field.value === (value || "picture");
      else if (field.tagName !== "SELECT" || [...field.options].some((one) => one.value === value)) field.value = value;
    }
    if (this.task === "boxes") this.boxes.set(asked.fields.boxes ?? []);
    fillSettings(asked.settings);
    if (this.task === "draw") this.#documents.pin(asked.fields.prompt ?? "", asked.documents);
    this.#showSlots();
    this.#showSettings();
    if (!asked.picture) return;
    if (asked.fields.lines === "sketch") {
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
    for (const [name, words] of Object.entries(TASKS[this.task].needs)) {
      const field = this.#field(this.task, name);
      if (!field.value.trim()) return { field, words };
    }
    if (this.task === "boxes") {
      const boxes = this.boxes.boxes;
      if (!boxes.length) return { field: at("boxes").querySelector("button"), words: "Add a box first." };
      const nameless = boxes.findIndex(({ name }) => !name.trim());
      const field = at("boxes").querySelectorAll(".box-name")[nameless];
      if (field) return { field, words: "Name each box." };
    }
    if (this.#sketching() && this.sketch.mask.empty) {
      return { field: at("sketch-painter").querySelector("canvas"), words: "Sketch something first." };
    }
    if (TASKS[this.task].picture && !this.#sketching() && !this.picker.picture) {
      return { field: at("choose"), words: "A picture is needed first." };
    }
    if (this.task === "infill" && this.mask.mask.empty) {
      return { field: at("mask-painter").querySelector("canvas"), words: "Paint over what shall be redrawn." };
    }
    return wrongSetting();
  }

  #say(words, field) {
    at("form-error").textContent = words;
    for (const marked of at("form").querySelectorAll("[aria-invalid]")) marked.removeAttribute("aria-invalid");
    if (field?.matches("input, textarea")) field.setAttribute("aria-invalid", "true");
  }

  #sketching() {
    return this.task === "structure" && at("panel-structure").querySelector("[value=sketch]").checked;
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
