// One picture, large; the arrows go on to the next candidates.

import { actionsOf } from "./actions.js";
import { at, button } from "./element.js";
import { urlOf } from "./picture.js";

let drawn = [];
let place = 0;
let words = "";

/** Make the dialog's buttons and keys work. */
export function startViewer() {
  const dialog = at("viewer");
  at("viewer-close").addEventListener("click", () => dialog.close());
  at("viewer-back").addEventListener("click", () => step(-1));
  at("viewer-next").addEventListener("click", () => step(1));
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

/**
 * Show one of several pictures.
 * @param {{picture: string, seed: number, score: number|null}[]} pictures
 * @param {number} first
 * @param {string} about What they were drawn for.
 */
export function view(pictures, first, about) {
  drawn = pictures;
  place = first;
  words = about;
  for (const id of ["viewer-back", "viewer-next"]) at(id).hidden = pictures.length < 2;
  show();
  at("viewer").showModal();
}

function step(by) {
  place = (place + by + drawn.length) % drawn.length;
  show();
}

function show() {
  const one = drawn[place];
  at("viewer-title").textContent = words;
  at("viewer-picture").src = urlOf(one.picture);
  at("viewer-picture").alt = `${words}, seed ${one.seed}`;
  const facts = [`Picture ${place + 1} of ${drawn.length}`, `seed ${one.seed}`];
  if (one.score !== null) facts.push(`match ${one.score.toFixed(2)}`);
  at("viewer-facts").textContent = facts.join(" · ");
  const actions = actionsOf(one, words).map(({ name, label, act }) => button(label, () => {
    if (!name.startsWith("save")) at("viewer").close();
    act();
  }));
  at("viewer-actions").replaceChildren(...actions);
}
