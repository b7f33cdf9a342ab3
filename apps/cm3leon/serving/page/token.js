// The token of a service that asks for one; kept until the tab is closed.

import { at } from "./element.js";

const KEY = "cm3-token";

let asking = null;

/**
 * The token that was given, if any.
 * @returns {string|null}
 */
export function token() {
  return sessionStorage.getItem(KEY);
}

/**
 * Ask for the token; requests that need it at the same time share one question.
 * @param {string} said What was wrong with the last one, if anything.
 * @returns {Promise<boolean>} Whether one was given.
 */
export function askForToken(said) {
  asking ??= ask(said).finally(() => {
    asking = null;
  });
  return asking;
}

function ask(said) {
  const dialog = at("token");
  const field = at("token-value");
  if (said) at("token-words").textContent = said;
  field.value = "";
  return new Promise((resolve) => {
    const finish = (given) => {
      if (given) sessionStorage.setItem(KEY, given);
      dialog.close();
      resolve(Boolean(given));
    };
    at("token-form").onsubmit = (event) => {
      event.preventDefault();
      finish(field.value.trim());
    };
    at("token-cancel").onclick = () => finish("");
    dialog.oncancel = (event) => {
      event.preventDefault();
      finish("");
    };
    dialog.showModal();
  });
}
