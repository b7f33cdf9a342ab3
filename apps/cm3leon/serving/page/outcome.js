// What comes back: progress, pictures or texts, what was looked up; or why nothing came.

import { announce, at, button, make } from "./element.js";
import { Gallery } from "./gallery.js";
import { urlOf } from "./picture.js";
import { readsPicture, titleOf } from "./tasks.js";

/** The side of the page that shows results. */
export class Outcome {
  #gallery;
  #documents;
  #asked = null;
  #half = false;

  /**
   * @param {object} parts
   * @param {any} parts.run
   * @param {import("./documents.js").Documents} parts.documents
   * @param {((text: string) => void)|null} parts.drawText None where the run does not draw.
   */
  constructor({ run, documents, drawText }) {
    this.#gallery = new Gallery(run.grid);
    this.#documents = documents;
    this.drawText = drawText;
  }

  /**
   * Clear the place for a request.
   * @param {import("./tasks.js").Asked} asked
   */
  begin(asked) {
    this.#asked = asked;
    this.#half = false;
    this.notice(null);
    at("empty").hidden = true;
    at("outcome").hidden = false;
    at("outcome-title").textContent = titleOf(asked);
    at("outcome-facts").textContent = "";
    at("texts").replaceChildren();
    at("shown").hidden = true;
    this.#gallery.clear();
    const { candidates = 1, seed } = asked.settings;
    if (asked.task !== "draw" || !asked.documents) this.#documents.clear();
    if (readsPicture(asked)) this.#shown({ "the picture": asked.picture });
    else this.#gallery.begin(titleOf(asked), candidates, seed);
    at("progress").hidden = false;
    this.#progress(null, "Waiting for the model");
    const drawing = `Drawing ${count(candidates, "candidate")}.`;
    announce(readsPicture(asked) ? "Reading the picture." : drawing);
  }

  /**
   * Show one event.
   * @param {{name: string, data: any}} event
   */
  take({ name, data }) {
    this.notice(null);
    if (name === "waiting") {
      const place = data.place ? `${count(data.place, "request")} before yours` : "Yours is next";
      this.#progress(null, place);
    } else if (name === "documents") {
      this.#showDocuments(this.#asked, data.documents);
      this.#progress(null, readsPicture(this.#asked) ? "Reading" : "Drawing");
    } else if (name === "progress") {
      this.#progress(data.done / data.steps);
      if (!this.#half && data.done * 2 >= data.steps) announce("Half done.");
      this.#half ||= data.done * 2 >= data.steps;
    } else if (name === "rows") {
      this.#gallery.rows(data);
      this.#progress(undefined, `Row ${data.rows} of ${data.of}`);
    }
  }

  /**
   * Show the result, fresh or out of the history.
   * @param {import("./tasks.js").Asked} asked
   * @param {{pictures?: any[], texts?: any[], shown?: Record<string, string>, seconds?: number,
   *   firstRow?: number}} result `firstRow`: seconds until the first row of codes was on the page.
   */
  finish(asked, { pictures, texts, shown = {}, seconds, firstRow }) {
    at("progress").hidden = true;
    if (pictures) this.#gallery.finish(pictures);
    if (texts) this.#texts(texts, Boolean(asked.fields.question));
    this.#shown(readsPicture(asked) ? { "the picture": asked.picture } : shown);
    const kind = asked.fields.question ? "answer" : "caption";
    const made = pictures ? count(pictures.length, "picture") : count(texts.length, kind);
    const facts = [made];
    if (asked.settings.seed !== undefined) facts.push(`seed ${asked.settings.seed}`);
    if (firstRow) facts.push(`first row after ${firstRow.toFixed(1)} s`);
    if (seconds) facts.push(`${firstRow ? "all " : ""}after ${seconds.toFixed(1)} s`);
    at("outcome-facts").textContent = facts.join(" · ");
    announce(texts ? `${made}: ${texts[0]?.text ?? ""}` : `${made} drawn.`);
  }

  /**
   * Show a result of the history.
   * @param {import("./tasks.js").Asked} asked
   * @param {any} result
   * @param {any[]} documents
   */
  restore(asked, result, documents) {
    this.begin(asked);
    this.finish(asked, result);
    if (documents.length) this.#showDocuments(asked, documents);
  }

  /** Leave what has come until now. */
  stop() {
    at("progress").hidden = true;
    this.#gallery.stop();
  }

  /**
   * Say that something is wrong, or must be waited for.
   * @param {string|null} words None takes the line away.
   * @param {{kind?: "bad"|"wait", act?: [string, () => void]}} [more] `act`: a button's label and
   *   what it does.
   */
  notice(words, { kind = "bad", act } = {}) {
    const place = at("notice");
    if (words === null && place.hidden) return;
    place.hidden = words === null;
    place.className = `notice ${kind}`;
    // Only what is wrong interrupts a screen reader, not a count-down.
    if (kind === "bad") place.setAttribute("role", "alert");
    else place.removeAttribute("role");
    place.replaceChildren();
    if (words === null) return;
    place.append(make("p", {}, words), ...(act ? [button(...act)] : []));
    place.scrollIntoView({ block: "nearest" });
  }

  #showDocuments({ task, fields, documents }, found) {
    const prompt = fields.prompt ?? "";
    this.#documents.show(found, { prompt, asked: documents, switches: task === "draw" });
  }

  #progress(share, words) {
    const bar = at("progress-bar");
    if (share === null) bar.removeAttribute("value");
    else if (share !== undefined) bar.value = share;
    if (words) at("progress-words").textContent = words;
  }

  #texts(texts, answers) {
    const draw = (text) => button("Draw this", () => this.drawText(text), {
      "aria-label": `Draw “${text}”`,
    });
    const copy = (text) => button("Copy", () => navigator.clipboard.writeText(text), {
      "aria-label": `Copy “${text}”`,
    });
    at("texts").replaceChildren(...texts.map(({ text, score }) => make("li", { class: "text" },
      make("p", {}, text),
      score === null ? null : make("span", { class: "facts" }, `match ${score.toFixed(2)}`),
      make("div", { class: "card-acts" },
        this.drawText && !answers ? draw(text) : null,
        // Over plain HTTP from another machine, browsers give a page no clipboard.
        navigator.clipboard ? copy(text) : null))));
  }

  #shown(pictures) {
    const known = Object.entries(pictures).filter(([, picture]) => picture);
    at("shown").hidden = !known.length;
    at("shown-list").replaceChildren(...known.map(([name, picture]) => make("li", {},
      make("img", { src: urlOf(picture), alt: "", width: 96, height: 96 }),
      make("span", {}, name))));
  }
}

/**
 * A number and what it counts.
 * @param {number} number
 * @param {string} thing
 * @returns {string}
 */
export function count(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}
