// What can be done with a drawn picture: a few buttons below it, and a menu of all.

import { at, button, icon } from "./element.js";
import { savePicture } from "./save.js";

const ENLARGED = 512;
const USES = [
  ["describe", "Describe it"],
  ["vary", "Draw more like it"],
  ["edit", "Edit it"],
  ["infill", "Redraw a part"],
  ["structure", "Draw along its lines"],
  ["teach", "Teach it under a new name"],
];

let page = null;
let opener = null;

/**
 * Say how actions reach the rest of the page.
 * @param {{can: string[], size: number, sharp: () => boolean,
 *   use: (task: string, picture: string, words: string) => void}} how
 */
export function startActions(how) {
  page = how;
  const menu = at("menu");
  menu.addEventListener("toggle", (event) => {
    opener?.setAttribute("aria-expanded", String(event.newState === "open"));
    if (event.newState === "open") menu.querySelector("button").focus();
  });
}

/**
 * All that can be done with a picture.
 * @param {{picture: string, seed: number}} drawn
 * @param {string} words What it was drawn for.
 * @returns {{name: string, label: string, act: () => void}[]}
 */
export function actionsOf(drawn, words) {
  const times = Math.max(2, Math.round(ENLARGED / page.size));
  return [
    { name: "save", label: "Save", act: () => savePicture(drawn, words) },
    {
      name: "save-large",
      label: `Save ${page.size * times} px wide`,
      act: () => savePicture(drawn, words, { times, sharp: page.sharp() }),
    },
    ...USES.filter(([task]) => page.can.includes(task)).map(([task, label]) => ({
      name: task, label, act: () => page.use(task, drawn.picture, words),
    })),
  ];
}

/**
 * The buttons below a picture.
 * @param {{picture: string, seed: number}} drawn
 * @param {string} words
 * @param {string} called What to call the picture to those who cannot see it.
 * @returns {HTMLElement[]}
 */
export function actionButtons(drawn, words, called) {
  const all = actionsOf(drawn, words);
  const short = [["save", "Save"], ["vary", "Vary"]].flatMap(([name, label]) => {
    const action = all.find((one) => one.name === name);
    if (!action) return [];
    const one = button(icon(name), action.act, { "aria-label": `${label} ${called}` });
    one.append(label);
    return [one];
  });
  const others = all.filter((one) => one.name !== "save");
  const more = button(icon("more"), () => openMenu(more, others), {
    class: "icon-button", "aria-label": `More to do with ${called}`, title: "More",
    "aria-haspopup": "true", "aria-expanded": "false",
  });
  return [...short, more];
}

function openMenu(from, actions) {
  const menu = at("menu");
  opener = from;
  menu.replaceChildren(...actions.map(({ label, act }) => button(label, () => {
    menu.hidePopover();
    act();
  })));
  menu.showPopover();
  const box = from.getBoundingClientRect();
  const size = menu.getBoundingClientRect();
  const below = box.bottom + 6 + size.height < innerHeight;
  const left = Math.min(box.right - size.width, innerWidth - size.width - 8);
  const top = below ? box.bottom + 6 : Math.max(8, box.top - size.height - 6);
  menu.style.left = `${Math.max(8, left) + scrollX}px`;
  menu.style.top = `${top + scrollY}px`;
}
