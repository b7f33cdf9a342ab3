// The ARIA tabs pattern: arrows, Home and End move, and what is moved to is chosen at once.

import { at } from "./element.js";

/**
 * Make the tabs work.
 * @param {string[]} names Those to show; the others are taken away.
 * @param {(name: string) => void} chosen Called whenever another one is chosen.
 * @returns {(name: string) => void} Chooses a tab.
 */
export function startTabs(names, chosen) {
  const list = at("tabs");
  for (const tab of [...list.children]) {
    if (!names.includes(nameOf(tab))) tab.remove();
  }
  const tabs = [...list.children];

  const choose = (name) => {
    for (const tab of tabs) {
      const on = nameOf(tab) === name;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      at(tab.getAttribute("aria-controls")).hidden = !on;
    }
    chosen(name);
  };

  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) choose(nameOf(tab));
  });
  list.addEventListener("keydown", (event) => {
    const here = tabs.indexOf(document.activeElement);
    const last = tabs.length - 1;
    const next = {
      ArrowRight: here === last ? 0 : here + 1,
      ArrowLeft: here <= 0 ? last : here - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (here < 0 || next === undefined) return;
    event.preventDefault();
    tabs[next].focus();
    choose(nameOf(tabs[next]));
  });
  return choose;
}

function nameOf(tab) {
  return tab.id.replace("tab-", "");
}
