// Starts the page, and joins its parts.

import { startActions } from "./actions.js";
import { Refused, aboutRun, askFor } from "./api.js";
import { Documents } from "./documents.js";
import { announce, at, button, moves } from "./element.js";
import { Form } from "./form.js";
import { History } from "./history.js";
import { layMosaic } from "./mosaic.js";
import { Outcome } from "./outcome.js";
import { readLink, writeLink } from "./permalink.js";
import { Shelf } from "./shelf.js";
import { startTabs } from "./tabs.js";
import { TASKS, requestOf } from "./tasks.js";
import { Teaching } from "./teach.js";
import { startViewer } from "./viewer.js";

const SHARP = "cm3-sharp";

/** The page, once it knows the run. */
class Page {
  #running = null;
  #last = null;

  constructor(run) {
    this.tabs = Object.keys(TASKS).filter((task) => run.can.includes(task));
    this.documents = new Documents({
      most: run.limits.documents,
      again: (prompt, keys, switched) => this.#again(prompt, keys, switched),
      failed: (problem) => this.#failed(problem, null),
    });
    const { documents } = this;
    const drawText = run.can.includes("draw") ? (text) => this.draw(text) : null;
    this.outcome = new Outcome({ run, documents, drawText });
    this.form = new Form({ run, documents, submit: () => this.submit() });
    this.teaching = new Teaching({
      picker: this.form.picker,
      draw: (prompt) => this.draw(prompt),
      failed: (problem) => this.#failed(problem, null),
    });
    this.shelf = new Shelf(new History(run.name), (entry) => this.#restore(entry));
    this.choose = startTabs(this.tabs, (task) => {
      this.form.choose(task);
      if (task === "teach") this.teaching.show();
    });
    this.choose(this.tabs[0]);
    at("cancel").addEventListener("click", () => this.#running?.abort());
    at("copy-link").addEventListener("click", () => this.#copyLink());
  }

  /** Ask for what the form says. */
  submit() {
    if (this.#running || this.form.task === "teach" || this.form.wrong()) return;
    this.#ask(this.form.current());
  }

  /** Draw a prompt that stands anywhere on the page. */
  draw(prompt) {
    this.choose("draw");
    this.form.write("draw", "prompt", prompt);
    this.submit();
  }

  /** Take a drawn picture to a tab; where nothing else is needed, begin at once. */
  async use(task, picture, words) {
    this.choose(task);
    await this.form.use(picture, words);
    if (task === "describe" || task === "vary") this.submit();
    else at(`tab-${task}`).focus();
  }

  /** Fill the form with what a link says; asking for it is left to the user. */
  async open(asked) {
    if (!asked || !this.tabs.includes(asked.task)) return;
    this.choose(asked.task);
    await this.form.fill(asked);
    at("send").focus();
  }

  async #ask(asked) {
    const running = new AbortController();
    this.#running = running;
    this.#last = asked;
    this.form.busy(true);
    this.outcome.begin(asked);
    this.#toResults();
    history.replaceState(null, "", `#${writeLink(asked)}`);
    try {
      const { result, documents } = await this.#follow(asked, running.signal);
      this.outcome.finish(asked, result);
      this.#offerSeed(asked);
      await this.shelf.add({ when: Date.now(), asked, result, documents });
    } catch (problem) {
      this.outcome.stop();
      if (running.signal.aborted) {
        this.outcome.notice(null);
        announce("Cancelled.");
        at("outcome-facts").textContent = "Cancelled";
      } else {
        this.#failed(problem);
      }
    } finally {
      this.#running = null;
      this.form.busy(false);
    }
  }

  async #follow(asked, signal) {
    const { name, body } = requestOf(asked);
    const busy = (seconds, attempt, of) => {
      const words = `Busy: trying again in ${seconds} s (try ${attempt} of ${of}).`;
      this.outcome.notice(words, { kind: "wait" });
      announce("Busy. It will be tried again.");
    };
    const started = performance.now();
    const since = () => (performance.now() - started) / 1000;
    let documents = [];
    let firstRow;
    let result = null;
    for await (const event of askFor(name, body, { signal, busy })) {
      if (event.name === "pictures" || event.name === "texts") result = event.data;
      else this.outcome.take(event);
      if (event.name === "documents") documents = event.data.documents;
      if (event.name === "rows") firstRow ??= since();
    }
    return { result: { ...result, firstRow, seconds: since() }, documents };
  }

  #again(prompt, keys, switched) {
    if (this.#running) return;
    this.choose("draw");
    this.form.write("draw", "prompt", prompt);
    if (this.form.wrong()) return;
    const asked = this.form.current();
    // With other documents the seed stays, so that the documents alone differ.
    const seed = this.#last?.settings.seed;
    if (switched && seed !== undefined) asked.settings.seed = seed;
    this.#ask({ ...asked, documents: switched ? keys : asked.documents });
  }

  async #restore({ asked, result, documents }) {
    if (this.#running || !this.tabs.includes(asked.task)) return;
    this.#last = asked;
    this.choose(asked.task);
    await this.form.fill(asked);
    this.outcome.restore(asked, result, documents);
    history.replaceState(null, "", `#${writeLink(asked)}`);
    this.#toResults();
  }

  #offerSeed({ settings }) {
    const field = at("seed");
    if (settings.seed === undefined || field.value !== "") return;
    at("outcome-facts").append(" · ", button("keep this seed", (event) => {
      field.value = settings.seed;
      event.target.replaceWith("seed kept");
    }, { class: "link" }));
  }

  #failed(problem, again = () => this.submit()) {
    if (!(problem instanceof Refused)) {
      this.outcome.notice("Something in this page went wrong; reload it, please.");
      throw problem;
    }
    if (problem.param === "documents") this.documents.unpin();
    this.form.refuse(problem.param);
    const act = again && problem.status !== 400 ? ["Try again", again] : undefined;
    const kept = problem.status === 0 ? " Nothing you entered is lost." : "";
    this.outcome.notice(problem.message + kept, { act });
  }

  #toResults() {
    const { top } = at("results").getBoundingClientRect();
    if (top < innerHeight * 0.6 && top > -200) return;
    at("results").scrollIntoView({ behavior: moves() ? "smooth" : "auto" });
  }

  async #copyLink() {
    const label = at("copy-link").lastChild;
    try {
      await navigator.clipboard.writeText(location.href);
      label.textContent = "Copied";
      announce("The link is copied. Pictures are not part of it.");
    } catch {
      // Over plain HTTP from another machine, browsers give a page no clipboard.
      label.textContent = "It is in the address bar";
    }
    setTimeout(() => { label.textContent = "Copy link"; }, 2500);
  }
}

function introduce(run) {
  const [rows, columns] = run.grid;
  document.title = `CM3Leon: ${run.name}`;
  const pixels = `${run.size} × ${run.size} pixels`;
  at("run-line").textContent = `${run.name} · ${pixels}, ${rows} × ${columns} codes`;
  at("code-count").textContent = `${rows * columns} codes`;
  at("foot-run").textContent = `CM3Leon ${run.version}, run “${run.name}”.`;
  const tabs = [...at("tabs").children];
  const missing = tabs.filter((tab) => !run.can.includes(tab.id.replace("tab-", "")));
  if (missing.length) {
    const names = missing.map((tab) => tab.textContent).join(", ");
    at("foot-run").append(` It was not tuned for: ${names}.`);
  }
}

function sharpness() {
  const boxes = [...document.querySelectorAll("[data-sharp]")];
  const apply = (on) => {
    document.body.classList.toggle("sharp", on);
    for (const box of boxes) box.checked = on;
  };
  for (const box of boxes) {
    box.addEventListener("change", () => {
      localStorage.setItem(SHARP, box.checked ? "on" : "off");
      apply(box.checked);
    });
  }
  apply(localStorage.getItem(SHARP) === "on");
}

async function start() {
  let run;
  at("notice").hidden = true;
  try {
    run = await aboutRun();
  } catch (problem) {
    at("notice").replaceChildren(problem.message, button("Try again", start));
    at("notice").className = "notice bad";
    at("notice").hidden = false;
    return;
  }
  introduce(run);
  sharpness();
  startViewer();
  const page = new Page(run);
  startActions({
    can: page.tabs, size: run.size, sharp: () => at("sharp").checked,
    use: (...picture) => page.use(...picture),
  });
  const examples = run.examples.map((prompt) => button(prompt, () => page.draw(prompt)));
  at("examples").replaceChildren(...examples);
  at("form").inert = false;
  await page.open(readLink(location.hash));
  addEventListener("hashchange", () => page.open(readLink(location.hash)));
  await page.shelf.show();
}

layMosaic();
await start();
